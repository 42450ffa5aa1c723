"""Every figure that the README claims, with its peer, as ratios within one run."""
