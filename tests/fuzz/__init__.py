"""Inputs that a fuzzer makes up, for everything that reads what others wrote: decoders and parsers.

``python -m tests.fuzz [--only NAME …] [--seconds N]`` is what ``make fuzz`` runs.
"""
