"""The users who log in with a password."""

import datetime as dt
from dataclasses import dataclass

from episodes_assets.accounts import names, passwords
from episodes_assets.accounts.identity import Identity, Role, Way
from episodes_assets.errors import AccountExists, LastOperator, NoSuchAccount
from episodes_assets.postgres.connect import Connection


@dataclass(frozen=True)
class User:
    """One user.

    Attributes:
        name: In lower case.
        role: What they may do.
        created_at: When they were added.
        last_login_at: When they last logged in; None if never.
        is_disabled: Whether they may not log in.
    """

    name: str
    role: Role
    created_at: dt.datetime
    last_login_at: dt.datetime | None
    is_disabled: bool


def add_user(connection: Connection, name: str, role: Role, password: str) -> None:
    """Add a user.

    Raises:
        BadAccount: If nobody can have that name or password.
        AccountExists: If the name is taken.
    """
    name = names.require_name(name)
    passwords.require_strong(password, name)
    added = connection.execute(
        "INSERT INTO dashboard.users (name, role, password_hash) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [name, role.value, passwords.hash_password(password)],
    )
    if added.rowcount != 1:
        raise AccountExists(
            f"there is a user {name} already", f"choose another name, or `episodes users password {name}`"
        )


def set_password(connection: Connection, name: str, password: str) -> None:
    """Give a user another password, and end their sessions.

    Raises:
        BadAccount: If it is too easily guessed.
        NoSuchAccount: If there is no such user.
    """
    name = names.fold(name)
    passwords.require_strong(password, name)
    hashed = passwords.hash_password(password)
    with connection.transaction():
        _change(connection, "UPDATE dashboard.users SET password_hash = %s WHERE name = %s", [hashed, name])
        _end_sessions(connection, name)


def set_role(connection: Connection, name: str, role: Role, *, force: bool = False) -> None:
    """Give a user another role; it counts in their running sessions at once.

    Args:
        connection: To the accounts.
        name: Of the user.
        role: What they may do from now on.
        force: Whether the last operator may be made a viewer.

    Raises:
        NoSuchAccount: If there is no such user.
        LastOperator: If no enabled operator would be left.
    """
    name = names.fold(name)
    with connection.transaction():
        if role is not Role.OPERATOR:
            _keep_an_operator(connection, name, force=force)
        _change(connection, "UPDATE dashboard.users SET role = %s WHERE name = %s", [role.value, name])


def disable_user(connection: Connection, name: str, *, force: bool = False) -> None:
    """Let a user log in no more, and end their sessions.

    Args:
        connection: To the accounts.
        name: Of the user.
        force: Whether it may be the last operator.

    Raises:
        NoSuchAccount: If there is no such user.
        LastOperator: If no enabled operator would be left.
    """
    name = names.fold(name)
    with connection.transaction():
        _keep_an_operator(connection, name, force=force)
        _change(connection, "UPDATE dashboard.users SET is_disabled = true WHERE name = %s", [name])
        _end_sessions(connection, name)


def enable_user(connection: Connection, name: str) -> None:
    """Let a disabled user log in again.

    Raises:
        NoSuchAccount: If there is no such user.
    """
    enabled = "UPDATE dashboard.users SET is_disabled = false WHERE name = %s"
    _change(connection, enabled, [names.fold(name)])


def remove_user(connection: Connection, name: str, *, force: bool = False) -> None:
    """Remove a user, their sessions with them.

    Args:
        connection: To the accounts.
        name: Of the user.
        force: Whether it may be the last operator.

    Raises:
        NoSuchAccount: If there is no such user.
        LastOperator: If no enabled operator would be left.
    """
    name = names.fold(name)
    with connection.transaction():
        _keep_an_operator(connection, name, force=force)
        _change(connection, "DELETE FROM dashboard.users WHERE name = %s", [name])


def list_users(connection: Connection) -> list[User]:
    """All users by name."""
    found = connection.execute(
        "SELECT name, role, created_at, last_login_at, is_disabled FROM dashboard.users ORDER BY name"
    )
    return [User(name, Role(role), *rest) for name, role, *rest in found]


def has_users(connection: Connection) -> bool:
    """Whether there is any user, disabled or not."""
    row = connection.execute("SELECT EXISTS (SELECT FROM dashboard.users)").fetchone()
    return bool(row and row[0])


def known_name(connection: Connection, name: str) -> str | None:
    """The name of the user whom somebody means; None if there is none, disabled ones included.

    What was typed in place of a name may be a password, and is then to be kept nowhere.
    """
    folded = names.fold(name)
    row = connection.execute(
        "SELECT name FROM dashboard.users WHERE name = %s", [folded if names.is_name(folded) else ""]
    ).fetchone()
    return None if row is None else str(row[0])


def log_in(connection: Connection, name: str, password: str) -> Identity | None:
    """Who logs in with a name and a password; None if they are wrong or the user is disabled.

    It takes as long in each case. Ask `throttle.try_again_after` before.
    """
    name = names.fold(name)
    found = connection.execute(
        "SELECT password_hash, is_disabled FROM dashboard.users WHERE name = %s",
        [name if names.is_name(name) else ""],
    ).fetchone()
    hashed, is_disabled = found or (None, True)
    if not passwords.matches(hashed, password) or hashed is None or is_disabled:
        return None
    renewed = passwords.hash_password(password) if passwords.needs_rehash(hashed) else hashed
    # Unless they were disabled or given another password while we looked.
    row = connection.execute(
        "UPDATE dashboard.users SET last_login_at = now(), password_hash = %s"
        " WHERE name = %s AND password_hash = %s AND NOT is_disabled RETURNING role",
        [renewed, name, hashed],
    ).fetchone()
    return None if row is None else Identity(name, Role(row[0]), Way.PASSWORD)


def _keep_an_operator(connection: Connection, name: str, *, force: bool) -> None:
    """Refuse, in the transaction of the change, to take the last enabled operator away."""
    # Two operators could otherwise remove each other. Logins can still be read.
    connection.execute("LOCK TABLE dashboard.users IN SHARE ROW EXCLUSIVE MODE")
    enabled = "SELECT name FROM dashboard.users WHERE role = %s AND NOT is_disabled"
    operators = [each for (each,) in connection.execute(enabled, [Role.OPERATOR.value])]
    if operators == [name] and not force:
        raise LastOperator(
            f"{name} is the last operator who can log in with a password",
            "add another one first, or say --force",
        )


def _change(connection: Connection, statement: str, parameters: list[str]) -> None:
    """Run a statement about one user, whose name is its last parameter."""
    if connection.execute(statement, parameters).rowcount != 1:
        raise NoSuchAccount(f"there is no user {parameters[-1]}", "see `episodes users list`")


def _end_sessions(connection: Connection, name: str) -> None:
    connection.execute("DELETE FROM dashboard.sessions WHERE user_name = %s", [name])
