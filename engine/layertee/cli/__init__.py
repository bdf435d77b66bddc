"""The command line: one module per command; arguments, output, exit codes."""
