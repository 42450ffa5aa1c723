"""From a block's stored values to tokens: a module for each encoder, found by its name."""
