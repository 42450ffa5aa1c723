"""Trunks, from the tokens of all blocks to one vector: a module for each, found by its name."""
