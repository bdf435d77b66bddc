"""Real peers on 127.0.0.1: a docker-registry, images of real content, skopeo.

Tests, benchmarks and the demo import from here, with the repository root on ``sys.path``.
Everything that is started here is also ended here, and nothing leaves the machine.
"""
