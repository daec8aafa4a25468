"""Accounts for the tests of this folder."""

from episodes_assets_tests.accounts.fixtures import accounts, connection

__all__ = ["accounts", "connection"]
