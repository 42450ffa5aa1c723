"""The toy repository's server, for every file here without a server of its own."""

from tests.support.toy_repository import client, endpoint, repository, toy_kinds

__all__ = ["client", "endpoint", "repository", "toy_kinds"]
