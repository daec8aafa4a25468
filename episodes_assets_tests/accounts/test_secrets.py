"""What is secret is not in the tables; the one key that must be is the same for all."""

import base64
import datetime as dt

from episodes_assets.accounts import audit, sessions, throttle, users
from episodes_assets.accounts.identity import Role
from episodes_assets.accounts.sessions import Lifetimes, signing_key
from episodes_assets.postgres.connect import Connection
from episodes_assets_tests.support.accounts import TABLES, AccountsDatabase

GOOD = "correct horse battery"


def test_no_table_holds_a_secret(accounts: AccountsDatabase, connection: Connection) -> None:
    users.add_user(connection, "ada", Role.OPERATOR, GOOD)
    identity = users.log_in(connection, "ada", GOOD)
    assert identity is not None
    day = dt.timedelta(days=1)
    session = sessions.start_session(connection, identity, Lifetimes(day, day))
    token = sessions.create_token(connection, "ci", Role.VIEWER, None)
    # A password typed where the name belongs.
    throttle.begin_attempt(connection, GOOD, "10.0.0.1")
    throttle.record_failure(connection, GOOD, "10.0.0.1")
    audit.record(connection, who="ada", method=None, what="x", detail={}, address="", outcome="x")
    signing_key(connection)
    for table in TABLES:
        assert accounts.query(f"SELECT count(*) > 0 FROM dashboard.{table}") == [(True,)], table
    dump = accounts.dump()
    for secret in (GOOD, session, token, token.removeprefix("episodes_")):
        beginning = secret[:15]  # whole in base64
        raw = beginning.encode()
        for spelt in (beginning, raw.hex(), base64.b64encode(raw).decode()):
            assert spelt not in dump
    assert base64.urlsafe_b64decode(session + "=").hex() not in dump


def test_the_signing_key_is_one(accounts: AccountsDatabase, connection: Connection) -> None:
    first: list[str] = []
    second = accounts.overlapping(lambda c: first.append(signing_key(c)), signing_key)
    assert first == [second] == [signing_key(connection)]
    assert len(second) >= 43
