"""The exceptions that are a person's to mend, not bugs. Each carries the exit code of the command that it ends."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in data, parameters or surroundings; its text says what to do. Printed as one line, no traceback."""

    code = 1


class Busy(UserError):
    """Another process is at it."""


class Late(UserError):
    """A server took too long: it may be ready in time at the next attempt."""


class Misuse(UserError):
    """A command was called wrongly, or params.yaml is wrong: nothing was begun."""

    code = 2


class Refused(UserError):
    """Validation or a gate has looked at everything and says no."""

    code = 3


class NeedsPerson(UserError):
    """A gate leaves it to somebody to say yes."""

    code = 4
