"""Adding a data set to the project."""
