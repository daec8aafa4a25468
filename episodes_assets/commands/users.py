"""`episodes users`: who may log in to the dashboard with a password."""

import datetime as dt
import sys
from typing import Annotated

import typer
from rich.table import Table

from episodes_assets.accounts import identity, throttle
from episodes_assets.accounts import sessions as account_sessions
from episodes_assets.accounts import users as account_users
from episodes_assets.accounts.identity import Role
from episodes_assets.commands.accounts import accounts, recorded
from episodes_assets.commands.console import err, out
from episodes_assets.errors import BadAccount
from episodes_assets.user_files import require_standard_output

app = typer.Typer(
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


@app.command()
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


@app.command("list")
def list_() -> None:
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


@app.command()
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


@app.command()
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


@app.command()
def disable(name: Name, force: Force = False) -> None:
    """Let a user log in no more, until they are enabled again. Their sessions end at once.

    Service tokens are not theirs and stay valid: see `episodes tokens list`.
    """
    name = identity.fold(name)
    with recorded("disable user", name=name) as connection:
        account_users.disable_user(connection, name, force=force)
    err.print(f"{name} can no longer log in; their sessions have ended.")


@app.command()
def enable(name: Name) -> None:
    """Let a disabled user log in again, with the password that they had.

    Waits after failed logins with that name are over as well.
    """
    name = identity.fold(name)
    with recorded("enable user", name=name) as connection:
        account_users.enable_user(connection, name)
        throttle.forget_failures(connection, name)
    err.print(f"{name} can log in again.")


@app.command()
def remove(name: Name, force: Force = False) -> None:
    """Remove a user for good. Their sessions end at once; what they did stays in the audit log.

    With the very last one removed, the next `episodes up` makes an operator with a new password.
    """
    name = identity.fold(name)
    with recorded("remove user", name=name) as connection:
        account_users.remove_user(connection, name, force=force)
    err.print(f"{name} is removed.")


@app.command()
def logout(
    name: Annotated[str, typer.Argument(help="A user's name, or an address known by OpenID Connect.")],
) -> None:
    """End all sessions of somebody, those begun with OpenID Connect included.

    They can log in again, unless you disable them or their provider refuses.
    """
    with recorded("end sessions", name=name) as connection:
        ended = account_sessions.end_sessions_of(connection, name)
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
    """Show a password before it is committed: one that cannot be shown is nobody's."""
    if generated is not None:
        err.print("The password, which is shown this once:")
        out.print(generated)
