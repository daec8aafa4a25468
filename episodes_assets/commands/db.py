"""`episodes db`: set the databases up, see how they are."""

import typer
from rich.filesize import decimal
from rich.table import Table

from episodes_assets.commands.console import err, out
from episodes_assets.databases.dsns import resolve_dsns
from episodes_assets.databases.provision import provision
from episodes_assets.databases.status import read_status
from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Set the four databases up, and see how they are.")


@app.command()
def init() -> None:
    """Create or upgrade roles, databases, schemas, rights and stamps; safe to run again.

    With configured DSNs, role names, passwords and database names are taken from them, and
    EPISODES_ADMIN_DSN names a role that may create them. The input tables are made only when
    EPISODES_INPUT_WRITER_DSN is set: the input database belongs to other systems.
    """
    settings = load_settings()
    provision(settings, resolve_dsns(settings), out.print)
    out.print(f"All databases are ready for environment {settings.environment!r}.")


@app.command()
def status() -> None:
    """Show each database: where it is, its versions, its size and its environment stamp."""
    found = read_status(resolve_dsns(load_settings()))
    table = Table(box=None)
    for name in ("database", "where", "PostgreSQL", "schema", "environment", "size"):
        table.add_column(name)
    for each in found:
        if each.error:
            table.add_row(each.database, each.where, f"[red]{each.error}[/]")
            continue
        behind = "" if each.is_current else f" (latest: {each.latest_version})"
        table.add_row(
            each.database,
            each.where,
            each.server_version,
            f"{each.schema_version or 'not ours to see'}{behind if each.schema_version else ''}",
            each.environment or "-",
            decimal(each.size_bytes),
        )
    out.print(table)
    broken = [each for each in found if each.error]
    if broken:
        raise DatabaseUnreachable(
            f"{len(broken)} of {len(found)} databases cannot be read", "see the table above"
        )
    if any(each.schema_version and not each.is_current for each in found):
        err.print("Some schemas are behind: run `episodes db init`.", style="yellow")
