"""What a column may hold: a module for each kind, found by its name."""
