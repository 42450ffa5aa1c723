"""From the tokens of all blocks to one vector: a module for each trunk, found by its name."""
