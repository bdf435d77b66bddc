"""What a release of layertee consists of, and how each piece of it is made: ``python -m release``.

Nothing of this is installed with the package. Each command is a module with ``add_arguments(parser)`` and
``main(args) -> int``; it runs in a checkout, by ``make dist`` or by itself, and writes into ``dist/``.
"""
