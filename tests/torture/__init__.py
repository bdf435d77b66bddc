"""The fault machine: what the commands promise about crashes, failing calls, servers and clocks, tried.

Each part is a module with ``run(budget)``: it makes as many cases as the budget says and returns figures.
``make torture`` runs all parts in full, for hours; ``make test`` a sample of each, from ``test_<part>.py``.
"""
