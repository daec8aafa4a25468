"""Users who log in with a password: adding, changing and checking them; the first operator.

Passwords are hashed with argon2id, and checked in the same time whether there is a user or not, so that
names cannot be found by timing. Users of an OpenID Connect provider have no row here. Counting failed
logins is `throttle`; what a login begins, `sessions`.
"""

import datetime as dt
import functools
import re
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

from episodes_assets.accounts import audit, identity
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.errors import AccountExists, BadAccount, LastOperator, NoSuchAccount
from episodes_assets.postgres.connect import Connection

MINIMUM_LENGTH = 12
MAXIMUM_LENGTH = 1_000
# zxcvbn's highest score: at least 10^10 guesses.
_STRONG = 4
# Characters of a password that zxcvbn is given: it accepts no more, as its time grows with their square.
_LONGEST_ESTIMATED = 72
_SYSTEM_WORDS = ("episodes", "episode", "dagster", "dashboard", "operator", "viewer")
_SHORTEST_WORD = 3
# The library's defaults follow RFC 9106; when they change, passwords are hashed anew at the next login.
_HASHER = PasswordHasher()
# No characters that look like one another.
_READABLE = "abcdefghijkmnpqrstuvwxyz23456789"


def hash_password(password: str) -> str:
    """The argon2id hash of a password, with its salt and costs."""
    return _HASHER.hash(_normalised(password))


def matches(hashed: str | None, password: str) -> bool:
    """Whether a hash is of this password.

    Args:
        hashed: The hash; None where there is no user: then it is False after the same time.
        password: The password to check.
    """
    dummy = _dummy(_HASHER)  # made in either case: else the first login would show which it was (timing)
    try:
        is_right = _HASHER.verify(hashed or dummy, _normalised(password))
    except (VerificationError, InvalidHashError):
        return False
    return is_right and hashed is not None


def needs_rehash(hashed: str) -> bool:
    """Whether a hash was made with other costs than this release's."""
    return _HASHER.check_needs_rehash(hashed)


def generate_password() -> str:
    """A password of 100 random bits that can be read aloud: four groups of five."""
    return "-".join("".join(secrets.choice(_READABLE) for _ in range(5)) for _ in range(4))


def require_strong(password: str, name: str) -> None:
    """Refuse a password that is too easily guessed.

    zxcvbn estimates how many guesses it takes: it knows common passwords and words, also spelt with digits
    for letters, names, dates, rows of the keyboard, sequences and repeats. The user's name and the words
    of this system count for nothing, because an attacker tries them first.

    Args:
        password: The new password.
        name: The user's name, folded.

    Raises:
        BadAccount: If it is too short, too long, common, or little more than names.
    """
    hint = "choose a longer one, several words for instance, or let --generate make one"
    if len(password) < MINIMUM_LENGTH:
        raise BadAccount(f"the password has fewer than {MINIMUM_LENGTH} characters", hint)
    if len(password) > MAXIMUM_LENGTH:
        raise BadAccount(f"the password has more than {MAXIMUM_LENGTH:,} characters", "choose a shorter one")
    hint = "choose four uncommon words that do not belong together, or let --generate make one"
    if (weakness := _weakness(password)) is not None:
        raise BadAccount(f"the password is easily guessed{weakness}", hint)
    if _weakness(_without_known_words(password, name)) is not None:
        raise BadAccount(
            "the password is little more than the user's name or words everybody knows of this system", hint
        )


def _weakness(password: str) -> str | None:
    """The warning of zxcvbn in brackets, empty if it gives none; None if the password is strong."""
    if not password:
        return ""
    found = zxcvbn(password[:_LONGEST_ESTIMATED])
    if found["score"] >= _STRONG:
        return None
    warning = found["feedback"]["warning"]
    return f" ({warning.rstrip('.')})" if warning else ""


def _without_known_words(password: str, name: str) -> str:
    """The password without the user's name and the words of this system, which an attacker tries first."""
    parts = re.split(r"[^a-z0-9]+", name)
    known = sorted({name, *parts, *_SYSTEM_WORDS}, key=len, reverse=True)
    rest = password.casefold()
    for word in known:
        if len(word) >= _SHORTEST_WORD:
            rest = rest.replace(word, "")
    return rest


def _normalised(password: str) -> bytes:
    """A password in NFKC, so that it does not depend on the keyboard; cut beyond the longest allowed."""
    return unicodedata.normalize("NFKC", password[: MAXIMUM_LENGTH + 1]).encode("utf-8", "surrogatepass")


@functools.cache
def _dummy(hasher: PasswordHasher) -> str:
    return hasher.hash(secrets.token_bytes(32))


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
    name = identity.require_name(name)
    require_strong(password, name)
    added = connection.execute(
        "INSERT INTO dashboard.users (name, role, password_hash) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [name, role.value, hash_password(password)],
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
    name = identity.fold(name)
    require_strong(password, name)
    hashed = hash_password(password)
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
    name = identity.fold(name)
    with connection.transaction():
        if role is not Role.OPERATOR:
            _keep_an_operator(connection, name, force=force)
        _change(connection, "UPDATE dashboard.users SET role = %s WHERE name = %s", [role.value, name])


def disable_user(connection: Connection, name: str, *, force: bool = False) -> None:
    """Disable a user's login, and end their sessions.

    Args:
        connection: To the accounts.
        name: Of the user.
        force: Whether it may be the last operator.

    Raises:
        NoSuchAccount: If there is no such user.
        LastOperator: If no enabled operator would be left.
    """
    name = identity.fold(name)
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
    _change(connection, enabled, [identity.fold(name)])


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
    name = identity.fold(name)
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
    """The stored name of a user, disabled or not; None if there is no such user.

    Only a name that this returns may be logged: what was typed in its place may be a password.
    """
    folded = identity.fold(name)
    row = connection.execute(
        "SELECT name FROM dashboard.users WHERE name = %s", [folded if identity.is_name(folded) else ""]
    ).fetchone()
    return None if row is None else str(row[0])


def log_in(connection: Connection, name: str, password: str) -> Identity | None:
    """Check a name and a password; None if they are wrong or the user is disabled.

    Each case takes the same time. `throttle.begin_attempt` must be called before.
    """
    name = identity.fold(name)
    found = connection.execute(
        "SELECT password_hash, is_disabled FROM dashboard.users WHERE name = %s",
        [name if identity.is_name(name) else ""],
    ).fetchone()
    hashed, is_disabled = found or (None, True)
    if not matches(hashed, password) or hashed is None or is_disabled:
        return None
    renewed = hash_password(password) if needs_rehash(hashed) else hashed
    # The conditions again: the user may have been disabled or given another password meanwhile (TOCTOU).
    row = connection.execute(
        "UPDATE dashboard.users SET last_login_at = now(), password_hash = %s"
        " WHERE name = %s AND password_hash = %s AND NOT is_disabled RETURNING role",
        [renewed, name, hashed],
    ).fetchone()
    return None if row is None else Identity(name, Role(row[0]), AuthMethod.PASSWORD)


def _keep_an_operator(connection: Connection, name: str, *, force: bool) -> None:
    """Refuse, in the transaction of the change, to leave no enabled operator."""
    # Two operators could otherwise remove each other at once (write skew). Reading stays possible.
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


NAME = "operator"


def add_first_operator(connection: Connection, show: Callable[[str, str], None]) -> bool:
    """Add an operator with a generated password where there is no user at all.

    Two processes at once add one. It is recorded in the audit log.

    Args:
        connection: To the accounts.
        show: Called before the commit with the name and the password, which is stored nowhere; if it raises,
            no operator is added.

    Returns:
        Whether one was added.
    """
    if has_users(connection):
        return False
    password = generate_password()
    with connection.transaction():
        connection.execute("LOCK TABLE dashboard.users IN SHARE ROW EXCLUSIVE MODE")
        if has_users(connection):
            return False
        add_user(connection, NAME, Role.OPERATOR, password)
        audit.record(
            connection,
            who="first start",
            method=None,
            what="add user",
            detail={"name": NAME, "role": Role.OPERATOR.value},
            address="",
            outcome="done",
        )
        show(NAME, password)
    return True
