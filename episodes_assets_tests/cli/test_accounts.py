"""`episodes users`, `tokens` and `audit`: secrets shown once, every change on record."""

import os
import pty
import pwd
import subprocess
from pathlib import Path

import pytest

from episodes_assets import descriptors
from episodes_assets.accounts import audit, sessions, throttle, users
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.accounts.sessions import Lifetimes
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.days import ONE_DAY
from episodes_assets.errors import (
    AccountExists,
    BadAccount,
    BadDay,
    BadSetting,
    DatabaseUnreachable,
    EpisodesError,
    LastOperator,
    NoSuchAccount,
)
from episodes_assets.postgres.connect import Connection
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.accounts import AccountsDatabase
from episodes_assets_tests.support.invoke import output, refusal

pytestmark = pytest.mark.process

GOOD = "correct horse battery"
DAY = Lifetimes(ONE_DAY, ONE_DAY)


@pytest.fixture(autouse=True)
def _only_the_dashboards_dsn(
    accounts: AccountsDatabase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EPISODES_HOME", str(tmp_path))
    monkeypatch.setenv(Purpose.DASHBOARD.setting, accounts.dsn)


def add(name: str, role: str) -> None:
    output("users", "add", name, "--role", role, "--password-stdin", typed=f"{GOOD}\n")


def test_a_generated_password_is_shown_once(accounts: AccountsDatabase, connection: Connection) -> None:
    shown, said = output("users", "add", "Ada", "--role", "operator", "--generate")
    password = shown.strip()
    assert password not in said
    assert users.log_in(connection, "ada", password) == Identity("ada", Role.OPERATOR, AuthMethod.PASSWORD)
    again, _ = output("users", "password", "ada", "--generate")
    assert users.log_in(connection, "ada", password) is None
    assert users.log_in(connection, "ada", again.strip()) is not None
    listed, _ = output("users", "list")
    assert password not in accounts.dump() + listed
    assert again.strip() not in accounts.dump() + listed


@pytest.mark.parametrize(
    "command",
    [
        ["users", "add", "ada", "--role", "viewer", "--generate"],
        ["tokens", "create", "ci", "--role", "viewer"],
        ["users", "list"],
        ["tokens", "list"],
        ["audit"],
        ["db", "status"],
        ["lake", "status"],
        ["lake", "verify"],
        ["lake", "vacuum"],
        ["up"],
    ],
)
def test_nothing_is_made_or_looked_up_that_nobody_would_see(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Standard output was closed when the command was started."""
    monkeypatch.setattr(descriptors, "_inherited", frozenset({0, 2}))
    assert "standard output is closed" in str(refusal(*command))
    assert users.list_users(connection) == []
    assert sessions.list_tokens(connection) == []


@pytest.mark.slow
def test_a_secret_that_cannot_be_shown_is_not_made(connection: Connection) -> None:
    """Standard output takes nothing: its disk is full, or whoever read it has gone."""
    add("ada", "viewer")
    ours, gone = os.pipe()
    os.close(ours)
    try:
        for arguments in (
            ["users", "add", "eve", "--role", "viewer", "--generate"],
            ["users", "password", "ada", "--generate"],
            ["tokens", "create", "ci", "--role", "viewer"],
        ):
            command = episodes_argv(*arguments)
            assert subprocess.run(command, stdout=gone, env=os.environ, check=False).returncode != 0
            with Path("/dev/full").open("w") as full:
                ended = subprocess.run(
                    command, stdout=full, stderr=subprocess.PIPE, text=True, env=os.environ, check=False
                )
            assert ended.returncode == 1
            assert "No space left on device" in ended.stderr
            assert "Traceback" not in ended.stderr
    finally:
        os.close(gone)
    assert [user.name for user in users.list_users(connection)] == ["ada"]
    assert users.log_in(connection, "ada", GOOD) is not None
    assert sessions.list_tokens(connection) == []
    assert [event.what for event in audit.read(connection)].count("add user") == 1


def test_a_password_comes_from_stdin_or_a_terminal(connection: Connection) -> None:
    add("ada", "viewer")
    assert users.log_in(connection, "ada", GOOD) == Identity("ada", Role.VIEWER, AuthMethod.PASSWORD)
    for arguments, typed, problem in (
        (["--password-stdin"], "short\n", "fewer than 12 characters"),
        (["--password-stdin"], "", "fewer than 12 characters"),
        ([], "", "no terminal to ask for a password on"),
        (["--password-stdin", "--generate"], "", "either generated or read"),
    ):
        error = refusal("users", "add", "eve", "--role", "viewer", *arguments, typed=typed)
        assert isinstance(error, BadAccount)
        assert problem in str(error)
    assert [user.name for user in users.list_users(connection)] == ["ada"]


def test_a_terminal_is_asked_twice_and_shows_nothing(connection: Connection) -> None:
    ours, theirs = pty.openpty()
    command = episodes_argv("users", "add", "ada", "--role", "viewer")
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ) as process:
        os.close(theirs)
        shown = ""
        for prompt in ("Password: ", "Repeat for confirmation: "):
            while not shown.endswith(prompt):
                shown += os.read(ours, 1_000).decode()
            os.write(ours, f"{GOOD}\n".encode())
        while "Added the viewer ada." not in shown:
            shown += os.read(ours, 1_000).decode()
    os.close(ours)
    assert process.returncode == 0
    assert GOOD not in shown
    assert users.log_in(connection, "ada", GOOD) is not None


def test_users_are_changed(connection: Connection) -> None:
    add("ada", "operator")
    add("eve", "viewer")
    eve = Identity("eve", Role.VIEWER, AuthMethod.PASSWORD)
    session = sessions.start_session(connection, eve, DAY)
    output("users", "role", "Eve", "operator")
    assert sessions.find_session(connection, session, DAY) == Identity(
        "eve", Role.OPERATOR, AuthMethod.PASSWORD
    )
    output("users", "disable", "eve")
    assert sessions.find_session(connection, session, DAY) is None
    assert "disabled" in output("users", "list")[0]
    for _ in range(throttle.OF_A_NAME.free):
        throttle.begin_attempt(connection, "eve", "10.0.0.1")
    output("users", "enable", "eve")
    assert throttle.begin_attempt(connection, "eve", "10.0.0.1") == 0
    session = sessions.start_session(connection, eve, DAY)
    assert "1 sessions of eve have ended" in output("users", "logout", "eve")[1]
    assert sessions.find_session(connection, session, DAY) is None
    output("users", "remove", "EVE")
    assert [user.name for user in users.list_users(connection)] == ["ada"]


def test_the_last_operator_goes_only_by_force(connection: Connection) -> None:
    add("ada", "operator")
    for command in (["role", "ada", "viewer"], ["disable", "ada"], ["remove", "ada"]):
        error = refusal("users", *command)
        assert isinstance(error, LastOperator)
        assert "say --force" in str(error)
        assert users.log_in(connection, "ada", GOOD) == Identity("ada", Role.OPERATOR, AuthMethod.PASSWORD)
    for command in (["role", "ada", "viewer"], ["disable", "ada"], ["remove", "ada"]):
        output("users", *command, "--force")
    assert "There is no user yet" in output("users", "list")[1]


def test_tokens_are_shown_once_and_revoked(accounts: AccountsDatabase, connection: Connection) -> None:
    shown, said = output("tokens", "create", "ci", "--role", "viewer", "--expires-days", "7")
    token = shown.strip()
    assert token not in said
    assert sessions.find_token(connection, token) == Identity("ci", Role.VIEWER, AuthMethod.TOKEN)
    (kept,) = sessions.list_tokens(connection)
    assert kept.expires_at is not None
    assert (kept.expires_at - kept.created_at).total_seconds() == pytest.approx(7 * 86_400, abs=60)
    output("tokens", "create", "deploy", "--role", "operator")
    accounts.age("service_tokens", 8 * 86_400)
    output("tokens", "revoke", "Deploy")
    listed, _ = output("tokens", "list")
    assert "expired" in listed
    assert "revoked" in listed
    assert token not in listed + accounts.dump()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["users", "add", "ada", "--role", "viewer", "--generate"], AccountExists),
        (["users", "add", "two words", "--role", "viewer", "--generate"], BadAccount),
        (["users", "password", "nobody", "--generate"], NoSuchAccount),
        (["users", "role", "nobody", "viewer"], NoSuchAccount),
        (["users", "remove", "nobody"], NoSuchAccount),
        (["tokens", "revoke", "nothing"], NoSuchAccount),
        (["audit", "--since", "yesterday"], BadDay),
    ],
)
def test_what_cannot_be_is_one_plain_error_and_not_on_record(
    connection: Connection, command: list[str], error: type[EpisodesError]
) -> None:
    add("ada", "operator")
    before = audit.read(connection)
    assert isinstance(refusal(*command), error)
    assert audit.read(connection) == before


def test_every_change_is_on_record(connection: Connection) -> None:
    changes = [
        ("add user", ["users", "add", "ada", "--role", "operator", "--generate"]),
        ("add user", ["users", "add", "eve", "--role", "viewer", "--generate"]),
        ("set password", ["users", "password", "eve", "--generate"]),
        ("set role", ["users", "role", "eve", "operator"]),
        ("disable user", ["users", "disable", "eve"]),
        ("enable user", ["users", "enable", "eve"]),
        ("end sessions", ["users", "logout", "eve"]),
        ("remove user", ["users", "remove", "eve"]),
        ("create token", ["tokens", "create", "ci", "--role", "viewer", "--expires-days", "1"]),
        ("revoke token", ["tokens", "revoke", "ci"]),
    ]
    secrets = [output(*command)[0].strip() for _, command in changes]
    events = list(reversed(audit.read(connection)))
    assert [event.what for event in events] == [what for what, _ in changes]
    me = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    assert {(event.who, event.method, event.outcome) for event in events} == {(me, None, "done")}
    assert [event.detail["name"] for event in events] == ["ada", *["eve"] * 7, "ci", "ci"]
    assert not any(secret in str(events) for secret in secrets if secret)


def test_what_cannot_be_recorded_is_not_done(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    add("ada", "operator")

    def full(*_: object, **__: object) -> None:
        raise DatabaseUnreachable("no space left")

    monkeypatch.setattr(audit, "record", full)
    for command in (["add", "eve", "--role", "viewer", "--generate"], ["remove", "ada", "--force"]):
        assert isinstance(refusal("users", *command), DatabaseUnreachable)
    assert [user.name for user in users.list_users(connection)] == ["ada"]


def test_the_audit_log_is_shown(accounts: AccountsDatabase, connection: Connection) -> None:
    def login(who: str, outcome: str) -> None:
        event = {"method": None, "what": "login", "detail": {"tries": 3}, "address": "10.0.0.1"}
        audit.record(connection, who=who, outcome=outcome, **event)  # type: ignore[arg-type]

    login("early", "refused")
    accounts.age("audit_log", 3 * 86_400)
    login("[red]ada[/]\x1b[2J", "refused")
    login("eve", "accepted")
    shown, _ = output("audit")
    lines = shown.splitlines()
    assert [("early" in line, "eve" in line) for line in lines[1:]] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    assert "[red]ada[/]\\x1b[2J" in shown
    assert "tries=3" in shown
    today = audit.read(connection)[0].at.date()
    assert "early" not in output("audit", "--since", str(today))[0]
    assert output("audit", "--who", "eve")[0].count("10.0.0.1") == 1
    assert "eve" in output("audit", "--limit", "1")[0]
    assert "early" not in output("audit", "--limit", "1")[0]


def test_without_the_dashboards_dsn_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, accounts: AccountsDatabase
) -> None:
    monkeypatch.delenv(Purpose.DASHBOARD.setting)
    monkeypatch.setenv(Purpose.QUEUE.setting, accounts.dsn)
    error = refusal("users", "list")
    assert isinstance(error, BadSetting)
    assert "EPISODES_DASHBOARD_DSN is not set" in str(error)
