"""Random changes of training samples: a module for each kind that has some."""
