"""Studies and rivals that are not part of the installed program."""
