"""Measures every figure in docs/, as a ratio to a peer within one run."""
