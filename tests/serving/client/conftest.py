"""The small model's server, for every file here that needs it."""

from tests.support.toy_client import toy

__all__ = ["toy"]
