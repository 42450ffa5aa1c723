"""Heads, from one vector to scores: a module for each kind of target, found by its name."""
