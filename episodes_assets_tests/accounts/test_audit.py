"""The audit log: everything in it can be read, nothing in it changed."""

import datetime as dt
import hashlib
import json
import logging
from typing import Any

import psycopg
import pytest

from episodes_assets.accounts import audit
from episodes_assets.accounts.identity import AuthMethod
from episodes_assets.postgres.connect import Connection
from episodes_assets_tests.support.accounts import AccountsDatabase


def add(connection: Connection, who: str = "ada", **given: Any) -> None:
    event = {
        "method": AuthMethod.PASSWORD,
        "what": "login",
        "detail": {},
        "address": "10.0.0.1",
        "outcome": "accepted",
    }
    audit.record(connection, who=who, **{**event, **given})


def test_events_are_read_newest_first(accounts: AccountsDatabase, connection: Connection) -> None:
    add(connection, what="login", detail={"via": "form"})
    accounts.age("audit_log", 3_600)
    add(connection, "ci", method=AuthMethod.TOKEN, what="terminateRun", outcome="refused")
    add(connection, "ada", method=None, what="login", outcome="too soon")
    newest, middle, oldest = audit.read(connection)
    assert (newest.who, newest.method, newest.outcome) == ("ada", None, "too soon")
    assert (middle.who, middle.method, middle.what) == ("ci", AuthMethod.TOKEN, "terminateRun")
    assert (oldest.who, oldest.method, oldest.detail) == ("ada", AuthMethod.PASSWORD, {"via": "form"})
    assert oldest.address == "10.0.0.1"
    assert audit.read(connection, 1) == [newest]
    assert audit.read(connection, who="ada") == [newest, oldest]
    assert audit.read(connection, 10, dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5), "ada") == [newest]


def test_whatever_a_request_holds_can_be_recorded(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    awkward = "a\0b\nc\ud800\x1b[31m"
    detail = {
        awkward: [awkward, 1, None, True, 1.5, float("nan"), {"deep": (dt.date(2018, 3, 1),)}],
        "number": 2**70,
    }
    with caplog.at_level(logging.INFO, logger=audit.__name__):
        add(connection, awkward * 100, detail=detail, address=awkward, what=awkward, outcome=awkward)
    (event,) = audit.read(connection)
    assert event.who.startswith("a\ufffdb\nc?")
    assert event.who.endswith(f"… (1,100 characters, SHA-256 {digest_of(awkward * 100)})")
    assert event.detail["number"] == 2**70
    assert event.detail["a\ufffdb\nc?\x1b[31m"] == [
        "a\ufffdb\nc?\x1b[31m", 1, None, True, 1.5, "nan", {"deep": ["2018-03-01"]},
    ]  # fmt: skip
    (record,) = caplog.records
    line = record.getMessage()
    assert line.isprintable()  # one line, whatever was in it
    assert json.loads(line.removeprefix("audit "))["what"] == event.what


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def test_a_long_text_is_told_from_any_other() -> None:
    assert audit.shortened("x" * 10, 10) == "x" * 10
    one, other = "\ud800" + "x" * 10 + "1", "\ud800" + "x" * 10 + "2"
    assert audit.shortened(one, 11) == one[:11] + f"… (12 characters, SHA-256 {digest_of(one)})"
    assert audit.shortened(one, 11) != audit.shortened(other, 11)
    assert audit.shortened(one, 11, kept=0) == f"… (12 characters, SHA-256 {digest_of(one)})"


DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "detail",
    [
        {"x" * 1_000_000: 1},
        {"x": "y" * 1_000_000},
        {"x": ["\ud800\0é"] * 100_000, "z": 1},
        {"x": {"k" * 1_000_000: 1}},
        {f"key {number}": number for number in range(100_000)},
        {"deep": DEEP},
        {"number": 10**4_000, "other": 10**4_000},
    ],
    ids=["a key", "a text", "a list", "a key below", "many keys", "a deep one", "numbers"],
)
def test_no_request_adds_more_than_some_kilobytes(connection: Connection, detail: dict[str, Any]) -> None:
    long = "x" * 9_999
    add(connection, long, detail=detail, what=long, address=long, outcome=long)
    stored = "SELECT octet_length(to_jsonb(audit_log)::text) FROM dashboard.audit_log"
    row = connection.execute(stored).fetchone()
    assert row is not None
    assert row[0] < 1.5 * audit.LONGEST_DETAIL
    (event,) = audit.read(connection)
    cut = "x" * 200 + f"… (9,999 characters, SHA-256 {digest_of(long)})"
    assert event.who == event.what == event.address == event.outcome == cut
    assert audit.shortened(next(iter(detail)), 200) in event.detail


def test_of_a_detail_is_kept_what_there_is_room_for(connection: Connection) -> None:
    small = {"a": 1, "b": ["x" * 16_000], "c": 2}
    large = {"a": 1, "b": ["x" * 17_000], "c": 2, "d": 3}
    add(connection, detail=small)
    add(connection, detail=large)
    assert (audit.fits(small), audit.fits(large)) == (True, False)
    cut, whole = audit.read(connection)
    assert whole.detail == {"a": 1, "b": ["x" * 16_000], "c": 2}
    assert cut.detail["a"] == 1
    digest = digest_of(json.dumps(large["b"]))
    assert str(cut.detail["b"]).endswith(f"x… (17,004 characters, SHA-256 {digest})")
    assert (cut.detail["…"], "c" in cut.detail) == ("2 more", False)


def test_a_name_that_is_not_proven_is_told_from_one_that_is(connection: Connection) -> None:
    add(connection, audit.unproven("ada"), method=None, outcome="refused")
    add(connection, "ada")
    add(connection, audit.unproven(""), method=None)
    assert [event.who for event in audit.read(connection)] == ["", "ada", "unproven:ada"]
    assert [event.who for event in audit.read(connection, who="ada")] == ["ada", "unproven:ada"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE dashboard.audit_log SET who = 'nobody'",
        "DELETE FROM dashboard.audit_log",
        "TRUNCATE dashboard.audit_log",
        "ALTER TABLE dashboard.audit_log DISABLE TRIGGER ALL",
        "DROP TABLE dashboard.audit_log",
    ],
)
def test_the_dashboard_only_adds(connection: Connection, statement: str) -> None:
    add(connection)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)
    assert len(audit.read(connection)) == 1


def test_an_event_is_undone_with_what_it_tells(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        add(connection)
    assert audit.read(connection) == []
