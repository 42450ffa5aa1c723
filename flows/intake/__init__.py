"""A new data set comes in."""
