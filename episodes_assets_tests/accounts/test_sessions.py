"""Sessions: they end when they should, and at once when their user may no longer."""

import datetime as dt
from collections.abc import Callable

import pytest

from episodes_assets.accounts import sessions, users
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.accounts.sessions import Lifetimes
from episodes_assets.postgres.connect import Connection
from episodes_assets_tests.support.accounts import AccountsDatabase

GOOD = "correct horse battery"
HOURS = Lifetimes(absolute=dt.timedelta(hours=12), idle=dt.timedelta(hours=1))
ADA = Identity("ada", Role.OPERATOR, AuthMethod.PASSWORD)
EVE = Identity("Eve@example.org", Role.VIEWER, AuthMethod.OIDC)


@pytest.fixture
def token(connection: Connection) -> str:
    users.add_user(connection, "ada", Role.OPERATOR, GOOD)
    return sessions.start_session(connection, ADA, HOURS)


def test_a_session_is_found_by_its_token_alone(connection: Connection, token: str) -> None:
    other = sessions.start_session(connection, EVE, HOURS)
    assert sessions.find_session(connection, token, HOURS) == ADA
    assert sessions.find_session(connection, other, HOURS) == EVE
    for wrong in ("", token[:-1], token.swapcase(), f"{token} ", "\0", "\ud800", "ada"):
        assert sessions.find_session(connection, wrong, HOURS) is None


def test_an_idle_session_times_out(accounts: AccountsDatabase, connection: Connection, token: str) -> None:
    accounts.age("sessions", 3_590)
    assert sessions.find_session(connection, token, HOURS) == ADA
    accounts.age("sessions", 3_590)  # in use an hour ago, so it goes on
    assert sessions.find_session(connection, token, HOURS, is_use=False) == ADA
    accounts.age("sessions", 20)  # looked at meanwhile, but not used
    assert sessions.find_session(connection, token, HOURS) is None


def test_a_session_in_use_ends_all_the_same(
    accounts: AccountsDatabase, connection: Connection, token: str
) -> None:
    for _ in range(23):
        accounts.age("sessions", 1_800)
        assert sessions.find_session(connection, token, HOURS) == ADA
    accounts.age("sessions", 1_800)
    assert sessions.find_session(connection, token, HOURS) is None


def test_lifetimes_are_the_shorter_of_then_and_now(
    accounts: AccountsDatabase, connection: Connection, token: str
) -> None:
    accounts.age("sessions", 600)
    longer = Lifetimes(absolute=dt.timedelta(days=9), idle=dt.timedelta(days=9))
    for shorter in (
        Lifetimes(absolute=dt.timedelta(minutes=5), idle=dt.timedelta(hours=1)),
        Lifetimes(absolute=dt.timedelta(hours=1), idle=dt.timedelta(minutes=5)),
    ):
        assert sessions.find_session(connection, token, shorter) is None
    assert sessions.find_session(connection, token, longer, is_use=False) == ADA
    accounts.age("sessions", 3_010)
    assert sessions.find_session(connection, token, longer) is None
    used = sessions.start_session(connection, ADA, HOURS)
    accounts.age("sessions", 43_210)
    accounts.query("UPDATE dashboard.sessions SET seen_at = now()")
    assert sessions.find_session(connection, used, longer) is None


def test_that_it_was_seen_is_written_rarely(
    accounts: AccountsDatabase, connection: Connection, token: str
) -> None:
    def version() -> object:
        return accounts.query("SELECT ctid, seen_at FROM dashboard.sessions")

    before = version()
    for _ in range(3):
        sessions.find_session(connection, token, HOURS)
    assert version() == before
    accounts.age("sessions", 29)
    before = version()
    sessions.find_session(connection, token, HOURS)
    assert version() == before
    accounts.age("sessions", 2)
    before = version()
    sessions.find_session(connection, token, HOURS)
    assert version() != before
    # With a short time-out it is written more often, so that use does not look idle.
    hasty = Lifetimes(absolute=dt.timedelta(hours=1), idle=dt.timedelta(seconds=20))
    quick = sessions.start_session(connection, ADA, hasty)
    for _ in range(4):
        accounts.age("sessions", 10)
        assert sessions.find_session(connection, quick, hasty) == ADA


@pytest.mark.parametrize(
    "shut_out",
    [
        lambda c: users.disable_user(c, "ada", force=True),
        lambda c: users.remove_user(c, "ada", force=True),
        lambda c: users.set_password(c, "ada", "another good password"),
        lambda c: sessions.end_sessions_of(c, "ADA"),
        # Even where only the flag is set.
        lambda c: c.execute("UPDATE dashboard.users SET is_disabled = true"),
    ],
    ids=["disabled", "removed", "given another password", "logged out", "flagged"],
)
def test_a_session_ends_with_its_users_right_to_it(
    connection: Connection, token: str, shut_out: Callable[[Connection], object]
) -> None:
    oidc = sessions.start_session(connection, EVE, HOURS)
    shut_out(connection)
    assert sessions.find_session(connection, token, HOURS) is None
    assert sessions.find_session(connection, oidc, HOURS) == EVE


def test_nobody_inherits_a_session_with_a_name(connection: Connection, token: str) -> None:
    users.remove_user(connection, "ada", force=True)
    late = sessions.start_session(connection, ADA, HOURS)  # logged in just before
    users.add_user(connection, "ada", Role.VIEWER, "another good password")
    for each in (token, late):
        assert sessions.find_session(connection, each, HOURS) is None
    # Nor does enabling somebody bring their old sessions back.
    again = sessions.start_session(connection, ADA, HOURS)
    users.disable_user(connection, "ada")
    users.enable_user(connection, "ada")
    assert sessions.find_session(connection, again, HOURS) is None


def test_a_session_has_the_role_of_now(connection: Connection, token: str) -> None:
    users.set_role(connection, "ada", Role.VIEWER, force=True)
    assert sessions.find_session(connection, token, HOURS) == Identity(
        "ada", Role.VIEWER, AuthMethod.PASSWORD
    )
    users.set_role(connection, "ada", Role.OPERATOR)
    assert sessions.find_session(connection, token, HOURS) == ADA
    # That of a provider's account was told when it logged in; a user of ours has no part in it.
    same_name = Identity("ada", Role.VIEWER, AuthMethod.OIDC)
    oidc = sessions.start_session(connection, same_name, HOURS)
    assert sessions.find_session(connection, oidc, HOURS) == same_name


def test_an_ended_session_stays_ended(connection: Connection, token: str) -> None:
    other = sessions.start_session(connection, ADA, HOURS)
    assert sessions.end_session(connection, token)
    assert not sessions.end_session(connection, token)
    assert sessions.find_session(connection, token, HOURS) is None
    assert sessions.find_session(connection, other, HOURS) == ADA
    sessions.start_session(connection, EVE, HOURS)
    assert sessions.end_sessions_of(connection, "eve@EXAMPLE.org") == 1
    assert sessions.end_sessions_of(connection, "ada") == 1


def test_only_sessions_that_are_over_are_forgotten(
    accounts: AccountsDatabase, connection: Connection, token: str
) -> None:
    accounts.age("sessions", 3_700)
    fresh = sessions.start_session(connection, EVE, HOURS)
    assert sessions.purge_sessions(connection) == 1
    accounts.age("sessions", 43_300)
    accounts.query("UPDATE dashboard.sessions SET seen_at = now()")
    assert sessions.find_session(connection, fresh, HOURS) is None
    assert sessions.purge_sessions(connection) == 1
    assert sessions.purge_sessions(connection) == 0
