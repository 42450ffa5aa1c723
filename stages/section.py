"""What every section of `params.yaml` is, and the hint for a word that is none of those that may stand there."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def nearest(word: str, known: Any) -> str:
    """A hint for a message: the nearest known word, else all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": there is {', '.join(known)}" if known else ""
