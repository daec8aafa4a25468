"""`episodes audit`: who did what in the dashboard."""

import datetime as dt
import json
from typing import Annotated

import typer
from rich.table import Table

from episodes_assets.accounts import audit as account_audit
from episodes_assets.commands.accounts import accounts
from episodes_assets.commands.console import out
from episodes_assets.days import parse_date
from episodes_assets.user_files import require_standard_output


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
        cells = (event.who, event.way or "-", event.what, event.outcome, event.address, _shown(event.detail))
        table.add_row(f"{event.at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}", *cells)
    out.print(table)


def _shown(detail: dict[str, object]) -> str:
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in detail.items()
        if value is not None
    )
