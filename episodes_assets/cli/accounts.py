"""`episodes users`, `tokens` and `audit`: the dashboard's accounts, and what was done there.

Each change goes on record in the audit log, in the same transaction.
"""

import datetime as dt
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table

from episodes_assets.accounts import audit as account_audit
from episodes_assets.accounts import identity, sessions, throttle
from episodes_assets.accounts import users as account_users
from episodes_assets.accounts.identity import Role, system_user_name
from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import ready_databases
from episodes_assets.days import parse_date
from episodes_assets.errors import BadAccount
from episodes_assets.postgres.connect import Connection, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.settings import load_settings
from episodes_assets.user_files import require_standard_output


@contextmanager
def accounts() -> Iterator[Connection]:
    """A connection to the accounts.

    Raises:
        BadSetting: If DSNs are configured, but not the dashboard's.
        WrongEnvironment: If they belong to another environment.
        DatabaseUnreachable: If no connection can be made.
    """
    settings = load_settings()
    dsn = ready_databases(settings).require(Purpose.DASHBOARD)
    with connect_to_write(dsn, Database.DAGSTER, settings.environment, autocommit=True) as connection:
        yield connection


@contextmanager
def recorded(what: str, **detail: object) -> Iterator[Connection]:
    """A connection for a change of the accounts, which is recorded in the same transaction in the audit log.

    Args:
        what: The action, for the audit log.
        detail: Its target and details, for the audit log.
    """
    with accounts() as connection, connection.transaction():
        yield connection
        account_audit.record(
            connection,
            who=f"cli:{system_user_name()}",
            method=None,
            what=what,
            detail=detail,
            address=socket.gethostname(),
            outcome="done",
        )


def audit(
    since: Annotated[str | None, typer.Option(help="From this day on (UTC), YYYY-MM-DD.")] = None,
    who: Annotated[
        str | None, typer.Option(help="Only this user, token, or `cli:USER` for commands.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
) -> None:
    """Show logins and changes, the newest last: when, who, how they proved it, what, from where.

    It holds what was done in the dashboard, refused attempts included, and each change to users and
    tokens. The dashboard itself can only add to it.

    Example: episodes audit --since 2026-11-01 --who ada
    """
    begin = None if since is None else dt.datetime.combine(parse_date(since), dt.time(), dt.UTC)
    require_standard_output()
    with accounts() as connection:
        found = account_audit.read(connection, limit, begin, who)
    table = Table(box=None)
    for column in ("at (UTC)", "who", "by", "what", "outcome", "from", "detail"):
        table.add_column(column, overflow="fold")
    for event in reversed(found):
        cells = (
            event.who,
            event.method or "-",
            event.what,
            event.outcome,
            event.address,
            _shown(event.detail),
        )
        table.add_row(f"{event.at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}", *cells)
    out.print(table)


def _shown(detail: dict[str, object]) -> str:
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in detail.items()
        if value is not None
    )


users_app = typer.Typer(
    no_args_is_help=True,
    help="Say who may log in to the dashboard with a password, and what they may do there.",
)
Name = Annotated[str, typer.Argument(help="The user's name; upper and lower case are the same.")]
ToBe = Annotated[
    Role, typer.Option(help="viewer: sees everything, changes nothing. operator: may change everything.")
]
Generate = Annotated[
    bool, typer.Option("--generate", help="Make a random password and print it, once, to stdout.")
]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")
]
Force = Annotated[bool, typer.Option("--force", help="Even if it is the last operator who can log in.")]


@users_app.command()
def add(name: Name, role: ToBe, generate: Generate = False, password_stdin: FromStdin = False) -> None:
    """Add a user, whose password is asked for twice and not shown, or generated, or read from stdin.

    A password has at least 12 characters, is neither common nor little more than the user's name, and is
    kept only as an argon2id hash.

    Example: episodes users add ada --role operator --generate
    """
    name = identity.require_name(name)
    password = _choose_password(generate=generate, from_stdin=password_stdin)
    with recorded("add user", name=name, role=role.value) as connection:
        account_users.add_user(connection, name, role, password)
        _show_generated(password if generate else None)
    err.print(f"Added the {role} {name}.")


@users_app.command("list")
def show_users() -> None:
    """Show all users: what they may do, when they were added, and when they last logged in.

    People who log in with OpenID Connect are not among them: their provider knows them.
    """
    require_standard_output()
    with accounts() as connection:
        found = account_users.list_users(connection)
    table = Table(box=None)
    for column in ("name", "role", "added", "last login", ""):
        table.add_column(column, no_wrap=True)
    for user in found:
        disabled = "disabled" if user.is_disabled else ""
        table.add_row(user.name, user.role, instant(user.created_at), instant(user.last_login_at), disabled)
    out.print(table)
    if not found:
        err.print("There is no user yet: episodes users add NAME --role operator")


@users_app.command()
def password(name: Name, generate: Generate = False, password_stdin: FromStdin = False) -> None:
    """Give a user another password. Their sessions end, and waits after failed logins are over.

    Example: episodes users password ada --generate
    """
    name = identity.fold(name)
    chosen = _choose_password(generate=generate, from_stdin=password_stdin)
    with recorded("set password", name=name) as connection:
        account_users.set_password(connection, name, chosen)
        throttle.forget_failures(connection, name)
        _show_generated(chosen if generate else None)
    err.print(f"{name} has another password; their sessions have ended.")


@users_app.command()
def role(
    name: Name,
    new: Annotated[Role, typer.Argument(metavar="ROLE", help="viewer or operator.")],
    force: Force = False,
) -> None:
    """Let a user be a viewer or an operator; it counts in their running sessions at once.

    Example: episodes users role ada viewer
    """
    name = identity.fold(name)
    with recorded("set role", name=name, role=new.value) as connection:
        account_users.set_role(connection, name, new, force=force)
    err.print(f"{name} is now {'an operator' if new is Role.OPERATOR else 'a viewer'}.")


@users_app.command()
def disable(name: Name, force: Force = False) -> None:
    """Disable a user's login until they are enabled again. Their sessions end at once.

    Service tokens are not theirs and stay valid: see `episodes tokens list`.
    """
    name = identity.fold(name)
    with recorded("disable user", name=name) as connection:
        account_users.disable_user(connection, name, force=force)
    err.print(f"{name} can no longer log in; their sessions have ended.")


@users_app.command()
def enable(name: Name) -> None:
    """Let a disabled user log in again, with the password that they had.

    Waits after failed logins with that name are over as well.
    """
    name = identity.fold(name)
    with recorded("enable user", name=name) as connection:
        account_users.enable_user(connection, name)
        throttle.forget_failures(connection, name)
    err.print(f"{name} can log in again.")


@users_app.command()
def remove(name: Name, force: Force = False) -> None:
    """Remove a user for good. Their sessions end at once; what they did stays in the audit log.

    With the very last one removed, the next `episodes up` makes an operator with a new password.
    """
    name = identity.fold(name)
    with recorded("remove user", name=name) as connection:
        account_users.remove_user(connection, name, force=force)
    err.print(f"{name} is removed.")


@users_app.command()
def logout(
    name: Annotated[str, typer.Argument(help="A user's name, or an address known by OpenID Connect.")],
) -> None:
    """End all sessions of somebody, those begun with OpenID Connect included.

    They can log in again, unless you disable them or their provider refuses.
    """
    with recorded("end sessions", name=name) as connection:
        ended = sessions.end_sessions_of(connection, name)
    err.print(f"{ended:,} sessions of {name} have ended.")


def instant(at: dt.datetime | None) -> str:
    """An instant for people, in UTC; a dash for none."""
    return "-" if at is None else f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M}"


def _choose_password(*, generate: bool, from_stdin: bool) -> str:
    if generate and from_stdin:
        raise BadAccount("a password is either generated or read", "give --generate or --password-stdin")
    if generate:
        require_standard_output()
        return account_users.generate_password()
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise BadAccount(
            "there is no terminal to ask for a password on", "say --generate or --password-stdin"
        )
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _show_generated(generated: str | None) -> None:
    """Print a generated password, before the commit: one that cannot be printed is not stored."""
    if generated is not None:
        err.print("The password, which is shown this once:")
        out.print(generated)


tokens_app = typer.Typer(
    no_args_is_help=True,
    help="Make and revoke service tokens: scripts send one as `Authorization: Bearer TOKEN`.",
)


@tokens_app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for; the audit log shows it.")],
    role: Annotated[Role, typer.Option(help="viewer: may read everything. operator: may change everything.")],
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it ends. Default: never.")
    ] = None,
) -> None:
    """Make a service token and print it, once, to stdout; only its SHA-256 is kept.

    Example: curl -H "Authorization: Bearer $(episodes tokens create ci --role viewer)" ...
    """
    require_standard_output()
    name = identity.require_name(name)
    ends = None if expires_days is None else dt.datetime.now(dt.UTC) + dt.timedelta(days=expires_days)
    with recorded("create token", name=name, role=role.value, expires_at=ends) as connection:
        token = sessions.create_token(connection, name, role, ends)
        until = "never" if ends is None else f"{instant(ends)} UTC"
        err.print(f"The {role}'s token {name}, which is shown this once; it ends: {until}")
        out.print(token, soft_wrap=True)  # before the commit: a token that cannot be printed is not stored


@tokens_app.command("list")
def show_tokens() -> None:
    """Show all tokens: what they allow, when they end and were last used (UTC).

    Revoked ones stay in the list; the tokens themselves cannot be shown again.
    """
    require_standard_output()
    with accounts() as connection:
        found = sessions.list_tokens(connection)
    table = Table(box=None)
    for column in ("name", "role", "made", "ends", "last used", ""):
        table.add_column(column, no_wrap=True)
    now = dt.datetime.now(dt.UTC)
    for token in found:
        table.add_row(
            token.name,
            token.role,
            instant(token.created_at),
            instant(token.expires_at),
            instant(token.last_used_at),
            _state(token, now),
        )
    out.print(table)


@tokens_app.command()
def revoke(name: Annotated[str, typer.Argument(help="The token's name.")]) -> None:
    """Revoke a token, from the very next request on; its name is free for another one.

    Example: episodes tokens revoke ci
    """
    name = identity.fold(name)
    with recorded("revoke token", name=name) as connection:
        sessions.revoke_token(connection, name)
    err.print(f"The token {name} is revoked.")


def _state(token: sessions.ServiceToken, now: dt.datetime) -> str:
    if token.revoked_at is not None:
        return f"revoked {instant(token.revoked_at)}"
    return "expired" if token.expires_at is not None and token.expires_at <= now else ""
