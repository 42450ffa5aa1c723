"""Encoders, trunks, heads and augmentations, found by name."""
