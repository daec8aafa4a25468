"""`episodes alerts`: lists the alerts that are open, and sends a test message over each channel.

When an alert is open is decided in `alerts/`; the sensor `alert_people` and the web server tell of it.
"""

import datetime as dt
import uuid

import typer
from rich.table import Table
from rich.text import Text

from episodes_assets.alerts.conditions import Severity
from episodes_assets.alerts.lifecycle import Event
from episodes_assets.cli.console import block, escaped, out
from episodes_assets.cli.context import ready_databases
from episodes_assets.errors import AlertNotDelivered, BadSetting
from episodes_assets.outbox.channels import ping
from episodes_assets.outbox.configuration import channels_of, dead_man_url
from episodes_assets.outbox.messages import Message
from episodes_assets.outbox.records import read_clock, read_evaluations, read_open_alerts
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.hosts import require_allowed
from episodes_assets.settings import load_settings
from episodes_assets.user_files import require_standard_output

TIMEOUT_SECONDS = 10.0

app = typer.Typer(no_args_is_help=False)


@app.callback(invoke_without_command=True)
def alerts(context: typer.Context) -> None:
    """See which alerts are open, since when, and what to do; test how people are told of them.

    Needs EPISODES_QUEUE_DSN. The sensor alert_people looks for alerts each half minute, and the web server
    watches Dagster's daemon; what each alert means is in docs/operations.md.
    """
    if context.invoked_subcommand is None:
        _show()


def _show() -> None:
    require_standard_output()
    settings = load_settings()
    dsns = ready_databases(settings)
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
        found, evaluated, now = read_open_alerts(queue), read_evaluations(queue), read_clock(queue)
    looked = ", ".join(f"{name} {seconds:.0f} s ago" for name, seconds in sorted(evaluated.items()))
    if not found:
        out.print(f"No alert is open. Looked last: {looked or 'nobody ever has'}.", soft_wrap=True)
        return
    table = Table("since", "alert", "what to do", "undelivered", box=None, pad_edge=False)
    for each in found:
        style = "bold red" if each.severity == Severity.ERROR else "yellow"
        waiting = [str(each.waiting)] if each.waiting else []
        problem = [f"({escaped(each.problem)})"] if each.problem else []
        table.add_row(
            f"{each.opened_at.astimezone(dt.UTC):%Y-%m-%d %H:%M}",
            Text(escaped(each.summary), style=style),
            escaped(each.hint),
            " ".join(waiting + problem),
        )
    out.print(table)
    for each in found:
        if each.detail:
            out.print(f"{escaped(each.key)}:")
            out.print(block(each.detail), soft_wrap=True)
    out.print(f"At {now.astimezone(dt.UTC):%H:%M:%S} UTC. Looked last: {looked}.", soft_wrap=True)


@app.command()
def test() -> None:
    """Send a test message over each configured channel, and ping the dead man's switch once.

    Needs the EPISODES_ALERT_* settings alone, no database. Nothing is put on record.

    Example: `EPISODES_ALERT_SLACK_URL=https://… episodes alerts test`
    """
    settings = load_settings()
    require_allowed(settings)
    channels, url = channels_of(settings), dead_man_url(settings)
    if not channels and url is None:
        raise BadSetting(
            "no way to tell people of alerts is configured",
            "set EPISODES_ALERT_SMTP_URL, EPISODES_ALERT_SLACK_URL or EPISODES_ALERT_WEBHOOK_URL; see "
            "docs/settings.md",
        )
    has_failed = False
    now = dt.datetime.now(dt.UTC)
    for channel in channels:
        message = Message(
            message_id=0,
            message_uid=uuid.uuid4(),
            alert_id=0,
            key="test",
            kind="test",
            severity=Severity.WARNING,
            event=Event.OPENED,
            channel=channel.name,
            summary="this is a test of `episodes alerts test`",
            detail="",
            hint="nothing",
            opened_at=now,
            created_at=now,
            attempts=1,
        )
        try:
            problem = channel.send(message, TIMEOUT_SECONDS)
        except AlertNotDelivered as error:
            has_failed = True
            out.print(f"failed: {escaped(str(error))}", style="bold red", soft_wrap=True)
        else:
            out.print(f"sent: {channel.name}")
            if problem:
                has_failed = True
                out.print(f"failed: {escaped(problem)}", style="bold red", soft_wrap=True)
    if url is not None:
        try:
            ping(url, TIMEOUT_SECONDS)
        except AlertNotDelivered as error:
            has_failed = True
            out.print(f"failed: dead man's switch: {escaped(str(error))}", style="bold red", soft_wrap=True)
        else:
            out.print("pinged: the dead man's switch")
    if has_failed:
        raise typer.Exit(1)
