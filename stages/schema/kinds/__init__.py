"""The kinds of columns: a module for each kind, found by its name."""
