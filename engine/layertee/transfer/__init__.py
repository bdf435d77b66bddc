"""One blob over few or many connections."""
