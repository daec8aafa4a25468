"""Accounts for the tests of this folder."""

from episodes_assets_tests.support.accounts import accounts, connection

__all__ = ["accounts", "connection"]
