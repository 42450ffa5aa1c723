"""params.yaml: what may stand in it."""
