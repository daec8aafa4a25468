"""`episodes tokens`: what scripts prove themselves to the dashboard with."""

import datetime as dt
from typing import Annotated

import typer
from rich.table import Table

from episodes_assets.accounts import identity, sessions
from episodes_assets.accounts.identity import Role
from episodes_assets.commands.accounts import accounts, recorded
from episodes_assets.commands.console import err, out
from episodes_assets.commands.users import instant
from episodes_assets.user_files import require_standard_output

app = typer.Typer(
    no_args_is_help=True,
    help="Make and revoke service tokens: scripts send one as `Authorization: Bearer TOKEN`.",
)


@app.command()
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
        out.print(token, soft_wrap=True)  # before it is committed: one that cannot be shown is nobody's


@app.command("list")
def list_() -> None:
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


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="The token's name.")]) -> None:
    """Let a token count no more, from the very next request on; its name is free for another one.

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
