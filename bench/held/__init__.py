"""The figures that this project is held to, in minutes: sections that are measured, kept and compared."""
