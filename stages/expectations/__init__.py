"""What is expected of a column: a module for each kind."""
