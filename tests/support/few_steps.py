"""Print a JSON object with the SHA-256 of each network's weights after a few steps in portable arithmetic.

The inputs are integers, so that the digests depend on torch's arithmetic alone.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from stages.core import arithmetic

STEPS, ROWS = 3, 64
SIZE = {"height": 8, "width": 8, "channels": 1, "mean": [65.0], "std": [40.0]}
NUMBER = {"mean": 8.0, "std": 4.0, "knots": [0.0, 4.0, 8.0, 12.0, 16.0], "missing": None}
WORDS = {"codes": {str(code): code for code in range(3, 40)}, "size": 40, "length": 12}
CLASS = {"labels": ["0", "1", "2"], "counts": [20, 20, 24]}
VALUE = {"mean": 1.0, "std": 1.0, "coverage": 0.8}
FLIPS = {"image": {"rotate": 5.0, "scale": 0.05, "shift": 0.05, "brightness": 0.1}}
PICTURE, NUMBERS, TEXT = ("x", "image", {}, SIZE), ("x", "number", {}, NUMBER), ("x", "text", {}, WORDS)
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "cnn": (PICTURE, ("y", "target_class", {}, CLASS), {"encoders": {"image": {"name": "cnn", "width": 32}}}),
    "mlp": (
        PICTURE,
        ("y", "target_class", {}, CLASS),
        {"encoders": {"image": {"name": "mlp", "hidden": [64, 32]}}},
    ),
    "residual": (
        NUMBERS,
        ("y", "target_number", {}, VALUE),
        {"encoders": {"number": {"name": "piecewise", "bins": 4}}, "trunk": {"name": "residual", "width": 32}},
    ),
    "gru": (TEXT, ("y", "target_class", {}, CLASS), {"encoders": {"text": {"name": "gru", "size": 32}}}),
    "transformer": (
        TEXT,
        ("y", "target_class", {}, CLASS),
        {"encoders": {"text": {"name": "transformer", "size": 32, "depth": 1}}},
    ),
}


def weights(feature: Any, target: Any, model: dict[str, Any]) -> str:
    """The digest of a network's weights after STEPS steps."""
    import torch

    from stages.networks import network
    from stages.networks.draws import Draws
    from stages.schema import Column, Schema

    schema = Schema((Column(*feature),), Column(*target))
    torch.manual_seed(0)
    net = network.Network(schema, network.resolve(schema, model))
    (tensor,) = (block.tensor for block in schema.blocks())
    numbers = np.random.Generator(np.random.PCG64(0))
    x = torch.from_numpy(numbers.integers(0, 40, (ROWS, *tensor.shape)).astype(tensor.dtype))
    if feature is TEXT:  # starts with code 2 and ends with padding
        x = x.clamp(3, 39).masked_fill(torch.arange(13) > torch.arange(ROWS)[:, None] % 12, 0)
        x[:, 0] = 2
    y = torch.from_numpy(numbers.integers(0, 3, ROWS))
    y = y[:, None].float() if schema.target.kind == "target_number" else y
    augment = network.augmenter(schema, FLIPS if feature is PICTURE else {})
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, fused=True)
    for step in range(STEPS):
        optimizer.zero_grad()
        net.head.loss(net(augment([x], Draws(0, step, np.arange(ROWS)))), y).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    content = b"".join(value.numpy().tobytes() for value in net.state_dict().values())
    return hashlib.sha256(content).hexdigest()[:16]


def main() -> None:
    """Print the digests."""
    arithmetic.portable()
    import torch

    torch.set_num_threads(1)
    print(json.dumps({name: weights(*kind) for name, kind in KINDS.items()}))


if __name__ == "__main__":
    main()
