"""Service tokens: they count until they are revoked or expire."""

import datetime as dt

import pytest

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.errors import AccountExists, BadAccount, NoSuchAccount
from episodes_assets.postgres.connect import Connection
from episodes_assets_tests.support.accounts import AccountsDatabase

CI = Identity("ci", Role.VIEWER, AuthMethod.TOKEN)


def test_a_token_stands_for_its_name_and_role(connection: Connection) -> None:
    token = sessions.create_token(connection, "CI", Role.VIEWER, None)
    other = sessions.create_token(connection, "deploy", Role.OPERATOR, None)
    assert token.startswith("episodes_")
    assert len(token) > 50
    assert sessions.find_token(connection, token) == CI
    assert sessions.find_token(connection, other) == Identity("deploy", Role.OPERATOR, AuthMethod.TOKEN)
    for wrong in ("", token[:-1], token.removeprefix("episodes_"), "\0", "\ud800"):
        assert sessions.find_token(connection, wrong) is None


def test_a_revoked_token_is_nobodys_and_stays_on_record(connection: Connection) -> None:
    token = sessions.create_token(connection, "ci", Role.VIEWER, None)
    sessions.revoke_token(connection, "CI")
    assert sessions.find_token(connection, token) is None
    with pytest.raises(NoSuchAccount, match="no token ci to revoke"):
        sessions.revoke_token(connection, "ci")
    again = sessions.create_token(connection, "ci", Role.VIEWER, None)
    assert sessions.find_token(connection, token) is None
    assert sessions.find_token(connection, again) == CI
    assert [each.revoked_at is None for each in sessions.list_tokens(connection)] == [False, True]


def test_an_expired_token_is_nobodys(accounts: AccountsDatabase, connection: Connection) -> None:
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    token = sessions.create_token(connection, "ci", Role.VIEWER, ends)
    assert sessions.list_tokens(connection)[0].expires_at == ends
    accounts.age("service_tokens", 3_500)
    assert sessions.find_token(connection, token) == CI
    with pytest.raises(AccountExists, match="there is a token ci already"):
        sessions.create_token(connection, "ci", Role.OPERATOR, None)
    accounts.age("service_tokens", 110)
    assert sessions.find_token(connection, token) is None
    # Its name is free again, and it does not come back with it.
    sessions.create_token(connection, "ci", Role.VIEWER, None)
    assert sessions.find_token(connection, token) is None


def test_when_it_was_used_is_known_to_half_a_minute(
    accounts: AccountsDatabase, connection: Connection
) -> None:
    token = sessions.create_token(connection, "ci", Role.VIEWER, None)
    assert sessions.list_tokens(connection)[0].last_used_at is None
    sessions.find_token(connection, token)
    first = sessions.list_tokens(connection)[0].last_used_at
    assert first is not None
    sessions.find_token(connection, token)
    assert sessions.list_tokens(connection)[0].last_used_at == first
    accounts.age("service_tokens", 31)
    sessions.find_token(connection, token)
    used = sessions.list_tokens(connection)[0].last_used_at
    assert used is not None
    assert used > first


def test_a_token_has_a_plain_name(connection: Connection) -> None:
    with pytest.raises(BadAccount, match="cannot be the name"):
        sessions.create_token(connection, "cli:root", Role.VIEWER, None)
