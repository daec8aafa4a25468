"""Users: who may log in, and that somebody always may."""

import statistics
import time
from collections.abc import Callable

import pytest
from argon2 import PasswordHasher

from episodes_assets.accounts import audit, users
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.accounts.users import add_first_operator
from episodes_assets.errors import AccountExists, BadAccount, LastOperator, NoSuchAccount
from episodes_assets.postgres.connect import Connection
from episodes_assets_tests.support.accounts import AccountsDatabase

GOOD = "correct horse battery"


def test_a_user_logs_in(connection: Connection) -> None:
    assert not users.has_users(connection)
    users.add_user(connection, "Ada", Role.OPERATOR, GOOD)
    assert users.has_users(connection)
    (added,) = users.list_users(connection)
    assert (added.name, added.role, added.is_disabled) == ("ada", Role.OPERATOR, False)
    assert added.last_login_at is None
    assert users.log_in(connection, "ada", "wrong horse battery") is None
    assert users.list_users(connection)[0].last_login_at is None
    assert users.log_in(connection, " ADA ", GOOD) == Identity("ada", Role.OPERATOR, AuthMethod.PASSWORD)
    assert users.list_users(connection)[0].last_login_at is not None


@pytest.mark.parametrize("name", ["nobody", "", "a\0b", "\ud800", "ada; DROP TABLE", "x" * 1_000_000])
def test_whatever_else_is_typed_is_nobody(connection: Connection, name: str) -> None:
    users.add_user(connection, "ada", Role.VIEWER, GOOD)
    assert users.log_in(connection, name, GOOD) is None


def test_names_are_unique_and_plain(connection: Connection) -> None:
    users.add_user(connection, "ada", Role.VIEWER, GOOD)
    with pytest.raises(AccountExists, match="there is a user ada already"):
        users.add_user(connection, "ADA", Role.OPERATOR, "another good password")
    assert users.log_in(connection, "ada", GOOD) == Identity("ada", Role.VIEWER, AuthMethod.PASSWORD)
    for name in ("", "cli:root", "two words", "-x", "a\0b", "x" * 101):
        with pytest.raises(BadAccount, match="cannot be the name"):
            users.add_user(connection, name, Role.VIEWER, GOOD)


def test_what_concerns_nobody_is_an_error(connection: Connection) -> None:
    changes: list[Callable[[], None]] = [
        lambda: users.set_password(connection, "nobody", GOOD),
        lambda: users.set_role(connection, "nobody", Role.VIEWER),
        lambda: users.set_role(connection, "nobody", Role.OPERATOR),
        lambda: users.disable_user(connection, "nobody"),
        lambda: users.enable_user(connection, "nobody"),
        lambda: users.remove_user(connection, "nobody"),
    ]
    for change in changes:
        with pytest.raises(NoSuchAccount, match="there is no user nobody"):
            change()


def test_passwords_are_changed_and_checked(connection: Connection) -> None:
    users.add_user(connection, "ada", Role.VIEWER, GOOD)
    with pytest.raises(BadAccount):
        users.set_password(connection, "ada", "short")
    users.set_password(connection, "Ada", "another good password")
    assert users.log_in(connection, "ada", GOOD) is None
    assert users.log_in(connection, "ada", "another good password") is not None


def test_a_disabled_user_waits_until_enabled(connection: Connection) -> None:
    users.add_user(connection, "ada", Role.VIEWER, GOOD)
    users.disable_user(connection, "ada")
    assert users.list_users(connection)[0].is_disabled
    assert users.log_in(connection, "ada", GOOD) is None
    users.enable_user(connection, "ada")
    assert users.log_in(connection, "ada", GOOD) is not None


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda c: users.disable_user(c, "ada"),
        lambda c: users.set_password(c, "ada", "another good password"),
        lambda c: users.remove_user(c, "ada"),
    ],
    ids=["disabled", "given another password", "removed"],
)
def test_who_is_shut_out_while_the_password_is_looked_at_is_out(
    accounts: AccountsDatabase,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[Connection], None],
) -> None:
    users.add_user(connection, "ada", Role.VIEWER, GOOD)
    look = users.matches

    def slow_look(hashed: str | None, password: str) -> bool:
        with accounts.connect() as other:
            meanwhile(other)
        return look(hashed, password)

    monkeypatch.setattr(users, "matches", slow_look)
    assert users.log_in(connection, "ada", GOOD) is None


def test_a_hash_of_other_costs_is_renewed(
    accounts: AccountsDatabase, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    users.add_user(connection, "ada", Role.VIEWER, GOOD)
    monkeypatch.setattr(users, "_HASHER", PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    assert users.log_in(connection, "ada", "wrong horse battery") is None
    assert "$m=8,t=1,p=1$" in accounts.dump()
    assert users.log_in(connection, "ada", GOOD) is not None
    assert "$m=16,t=2,p=1$" in accounts.dump()
    assert users.log_in(connection, "ada", GOOD) is not None


def test_an_answer_takes_as_long_whoever_is_asked_for(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in time on the processor, which other processes do not change."""
    monkeypatch.setattr(users, "_HASHER", PasswordHasher(time_cost=2, memory_cost=8_192, parallelism=1))
    users.add_user(connection, "ada", Role.VIEWER, GOOD)
    users.add_user(connection, "disabled", Role.VIEWER, GOOD)
    users.disable_user(connection, "disabled")
    taken: dict[str, list[float]] = {"ada": [], "nobody": [], "disabled": [], "\0": []}
    for _ in range(7):
        for name, times in taken.items():
            begin = time.process_time()
            assert users.log_in(connection, name, "wrong horse battery") is None
            times.append(time.process_time() - begin)
    medians = [statistics.median(times) for times in taken.values()]
    assert max(medians) < 2 * min(medians), taken


@pytest.mark.parametrize(
    "take_away",
    [
        lambda c, force: users.remove_user(c, "ada", force=force),
        lambda c, force: users.disable_user(c, "Ada", force=force),
        lambda c, force: users.set_role(c, "ada", Role.VIEWER, force=force),
    ],
    ids=["removed", "disabled", "made a viewer"],
)
def test_the_last_operator_stays_unless_forced(
    connection: Connection, take_away: Callable[..., None]
) -> None:
    for name, role in (("ada", Role.OPERATOR), ("grace", Role.OPERATOR), ("looker", Role.VIEWER)):
        users.add_user(connection, name, role, GOOD)
    users.disable_user(connection, "grace")  # so she does not count
    with pytest.raises(LastOperator, match=r"ada is the last operator.*--force"):
        take_away(connection, force=False)
    assert users.log_in(connection, "ada", GOOD) == Identity("ada", Role.OPERATOR, AuthMethod.PASSWORD)
    users.set_role(connection, "ada", Role.OPERATOR)
    users.disable_user(connection, "looker")
    users.remove_user(connection, "grace")
    take_away(connection, force=True)
    assert users.log_in(connection, "ada", GOOD) != Identity("ada", Role.OPERATOR, AuthMethod.PASSWORD)


def test_two_operators_cannot_remove_each_other(accounts: AccountsDatabase, connection: Connection) -> None:
    users.add_user(connection, "ada", Role.OPERATOR, GOOD)
    users.add_user(connection, "grace", Role.OPERATOR, GOOD)
    outcome = accounts.overlapping(
        lambda c: users.remove_user(c, "grace"), lambda c: users.disable_user(c, "ada")
    )
    assert isinstance(outcome, LastOperator)
    assert users.log_in(connection, "ada", GOOD) is not None


def test_the_first_operator_is_made_once(accounts: AccountsDatabase, connection: Connection) -> None:
    shown: list[tuple[str, str]] = []

    def add(own: Connection) -> bool:
        return add_first_operator(own, lambda *made: shown.append(made))

    assert accounts.overlapping(add, add) is False
    ((name, password),) = shown
    assert users.log_in(connection, name, password) == Identity(
        "operator", Role.OPERATOR, AuthMethod.PASSWORD
    )
    assert add(connection) is False
    (event,) = audit.read(connection)
    assert (event.who, event.what, event.detail["name"]) == ("first start", "add user", "operator")
    assert password not in accounts.dump()


def test_an_operator_whose_password_nobody_saw_is_not_made(connection: Connection) -> None:
    def cannot_show(_name: str, _password: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        add_first_operator(connection, cannot_show)
    assert users.list_users(connection) == []
    assert audit.read(connection) == []
