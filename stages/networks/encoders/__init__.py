"""Encoders, from a block's stored values to tokens: a module for each, found by its name."""
