"""Accounts for the commands that change them."""

from episodes_assets_tests.accounts.fixtures import accounts, connection

__all__ = ["accounts", "connection"]
