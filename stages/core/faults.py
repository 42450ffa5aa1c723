"""Turn what pydantic finds into errors with codes."""

from __future__ import annotations

from stages.core.errors import Invalid


def invalid(fault: str, sentence: str) -> Invalid:
    """The error for a value that pydantic rejects. `fault`: its type, such as `int_type` or `less_than`."""
    if fault.endswith("_type"):
        return Invalid("params-wrong-type", sentence)
    if fault.startswith(("greater_than", "less_than")):
        return Invalid("params-out-of-range", sentence)
    if fault == "literal_error":
        return Invalid("params-unknown-choice", sentence)
    return Invalid("params-invalid-value", sentence)
