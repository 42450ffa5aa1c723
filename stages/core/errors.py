"""Errors that a user can fix, as opposed to bugs. Each has the exit code of the command that it ends."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in data, parameters or environment. Its message says what to do, and is printed without a traceback."""

    code = 1


class Busy(UserError):
    """Another process holds the lock."""


class Late(UserError):
    """A server took too long. The next attempt may succeed."""


class Misuse(UserError):
    """The command line or params.yaml is wrong. Nothing was started."""

    code = 2


class Refused(UserError):
    """Validation or the gate has refused."""

    code = 3


class NeedsPerson(UserError):
    """The gate leaves the decision to a person."""

    code = 4
