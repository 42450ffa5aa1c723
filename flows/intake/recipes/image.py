"""The recipe of pictures."""

from __future__ import annotations

import numpy as np

from flows.intake.recipes import Part, Seen

SIDE = 64  # the longer side that pictures are shrunk to, unless the schema says otherwise
PIXEL_S = 6e-7  # of one core, in a training step of the network of full width


def part(seen: Seen) -> Part:
    """A residual network, wider for small pictures. Photos are changed more than drawings and scans, and mirrored."""
    height, width = (float(np.median(seen.facts.get(name, [SIDE]))) for name in ("height", "width"))
    shrink = min(1.0, SIDE / max(height, width))
    pixels = height * width * shrink**2
    color = bool(np.mean([mode not in ("1", "L", "LA", "I;16", "I") for mode in seen.facts.get("mode", ["RGB"])]) > 0.5)
    photos = color and max(height, width) > SIDE
    few = seen.rows < 1000
    change = (
        {"rotate": 10, "scale": 0.1, "shift": 0.08} if few or photos else {"rotate": 5, "scale": 0.05, "shift": 0.05}
    )
    if photos:
        change |= {"flip": True, "brightness": 0.1, "contrast": 0.2, "saturation": 0.2}
    train = {"batch_size": 32 if seen.rows < 3000 else 64, "learning_rate": 0.005, "l2": 0.1, "average": 0.99}
    encoder = {"name": "cnn", "width": 32, "depth": 1}
    return Part(encoder, change, {"name": "concat", "dropout": 0.0}, train, row_cost=pixels * PIXEL_S)
