"""Accounts for the commands that change them."""

from episodes_assets_tests.support.accounts import accounts, connection

__all__ = ["accounts", "connection"]
