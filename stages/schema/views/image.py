"""How a picture is seen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from stages.schema.kinds.image import bits_used, open_header, upright


def likely(values: Sequence[Any]) -> float:
    """The share of pictures and of names of pictures."""
    return sum(map(_is_picture, values)) / max(1, len(values))


def draw(value: bytes, axes: Any) -> None:
    """The picture; one of over 8 bits a sample from black to its own white."""
    axes.imshow(np.asarray(upright(value, "RGB", {"bits": bits_used(open_header(value)) or 16})))
    axes.set_axis_off()


def _is_picture(value: Any) -> bool:
    if not isinstance(value, bytes):
        return os.path.splitext(str(value))[1].lower() in Image.registered_extensions()
    try:
        return bool(open_header(value))
    except ValueError:
        return False
