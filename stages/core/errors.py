"""Errors that a user can fix, as opposed to bugs. Each has a stable code, which docs/errors.md explains."""

from __future__ import annotations

from typing import Any


class CodedError(Exception):
    """An error with a code, such as `data-not-found`, that stays the same when its sentence is reworded."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, str(self)), self.__dict__  # to another process, such as a test's


class Invalid(CodedError, ValueError):
    """A wrong value in params.yaml. Pydantic collects such errors, and a Misuse reports them."""


class UserError(CodedError):
    """A mistake in data, parameters or environment. Its sentence says what to do, and is printed without a traceback.

    `exit_code` is that of the command that it ends.
    """

    exit_code = 1

    @property
    def line(self) -> str:
        """The line that the command prints: the sentence, and the code at its end."""
        return f"error: {self}  [{self.code}]"


class Busy(UserError):
    """Another process holds the lock."""


class Late(UserError):
    """A server took too long. The next attempt may succeed."""


class Misuse(UserError):
    """The command line or params.yaml is wrong. Nothing was started."""

    exit_code = 2


class Refused(UserError):
    """Validation or the gate has refused."""

    exit_code = 3


class NeedsPerson(UserError):
    """The gate leaves the decision to a person."""

    exit_code = 4
