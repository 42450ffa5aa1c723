"""The one exception that is a person's to mend, not a bug."""


class UserError(Exception):
    """A mistake in data, parameters or surroundings; its text says what to do. Printed as one line, no traceback."""


class Refused(UserError):
    """Validation or a gate has looked at everything and says no. Ends a command with exit code 3."""
