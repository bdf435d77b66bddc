"""What tests share: servers and tools to test with (``rig``, ``fakes``), kits, and pytest's plugins.

Benchmarks and the demo import from this package, too, and nothing else of the tests; tests import nothing of
the benchmarks. A name with an underscore is of its module alone.
"""
