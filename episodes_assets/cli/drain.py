"""`episodes drain`: launch no more runs of a code location, wait for those that run, and say what is left.

Interrupted or out of time, it undoes what it began; `--resume` ends a drain once the process is replaced. How
a code location is drained is `defs/draining.py`.
"""

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import announce_open_hosts, ready_databases
from episodes_assets.cli.runs import open_instance
from episodes_assets.errors import CannotDrain, DrainTimedOut
from episodes_assets.settings import load_settings
from episodes_assets.signals import SignalsHeldBack, holding_signals_back

if TYPE_CHECKING:
    import dagster as dg

POLL_SECONDS = 1.0
# A daemon chooses what to launch every few seconds, and launches within some more.
HOLD_SECONDS = 180.0
_WAITS = "Waiting: "


def drain(
    location: Annotated[str, typer.Option(help="The code location, as the workspace names it.")] = (
        "episodes_assets"
    ),
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait at most. Default: as long as it takes.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Let runs be launched again, once the process is replaced.")
    ] = False,
) -> None:
    """Let the runs of a code location end and launch no more, so that its process can be replaced.

    Runs that are launched or scheduled meanwhile wait in the queue. It shows what it waits for. When all runs
    have ended it switches the schedules and sensors off and says that it is safe: replace the process, then
    run `episodes drain --resume`, which switches on again what was on. Ctrl-C, a lost terminal and --timeout
    undo all of it, but no drain that was in force before. A run that has been silent for long is waited for
    too: if its process was killed, end it in the UI. Workers and runs of `episodes run` go on meanwhile.

    Example: episodes drain --timeout 3600 && systemctl restart episodes-code && episodes drain --resume
    """
    settings = load_settings()
    dsns = ready_databases(settings)
    announce_open_hosts(settings)
    with open_instance(settings, dsns) as instance, holding_signals_back() as signals:
        from episodes_assets.defs import draining

        draining.require_known(instance, location)
        if resume:
            _resume(instance, location)
            return
        token = draining.new_token()
        try:
            deadline = time.monotonic() + timeout if timeout is not None else None
            _drain(instance, location, token, deadline, signals)
        except BaseException:
            ended = draining.resume(instance, location, token)
            with contextlib.suppress(OSError):  # nobody reads it any more
                if ended is not None:
                    err.print(f"Runs of {location} are launched as before.")
                elif other := draining.read_drains(instance).get(location):
                    err.print(f"{location} stays drained, as {other.by} asked for at {other.since}.")
            raise


def _drain(
    instance: "dg.DagsterInstance",
    location: str,
    token: str,
    deadline: float | None,
    signals: SignalsHeldBack,
) -> None:
    from episodes_assets.defs import draining

    begun = draining.begin(instance, location, _now(), token)

    def check() -> None:
        signals.raise_any()
        draining.require_in_force(instance, begun)

    waiting = _Waiting(deadline, check)
    by = "" if begun.token == token else f", as {begun.by} asked for"
    out.print(f"No more runs of {location} are launched, since {begun.since}{by}")

    def not_held() -> Sequence[str]:
        if draining.is_held(instance, begun) or not draining.daemon_lives(instance, _now()):
            return ()
        if waiting.lasts > HOLD_SECONDS:
            raise CannotDrain(
                "the daemon goes on launching runs: it has an older release's dagster.yaml",
                "copy this release's dagster.yaml to its DAGSTER_HOME and start it again",
            )
        return ["the daemon, which has not said yet that it holds the queue"]

    waiting.until_none(not_held)
    waiting.until_none(lambda: [f"run {each}" for each in draining.running(instance, location, _now())])
    draining.switch_off_automation(instance, begun)
    waiting.until_none(lambda: draining.ticks_in_progress(instance, location, _now()))
    queue = draining.queued(instance, location)
    check()
    out.print(
        f"It is safe to replace {location}: none of its runs is running, {queue:,} wait in the queue, and its"
        " schedules and sensors are off. Then: episodes drain --resume",
        style="bold",
        soft_wrap=True,
    )


def _resume(instance: "dg.DagsterInstance", location: str) -> None:
    from episodes_assets.defs import draining

    ended = draining.resume(instance, location)
    if ended is None:
        out.print(f"{location} was not drained; its runs are launched")
        return
    count = len(ended.switched_off)
    out.print(f"Runs of {location} are launched again; {count} schedules and sensors are on as before")


class _Waiting:
    """Waits until there is nothing left, and prints what there is whenever that changes.

    Args:
        deadline: When to give up, by `time.monotonic`; None to wait as long as it takes.
        check: Called before each look; raises if there is nothing to wait for any more.
    """

    def __init__(self, deadline: float | None, check: Callable[[], object]) -> None:
        self._deadline = deadline
        self._check = check
        self._began = time.monotonic()

    @property
    def lasts(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    def until_none(self, look: Callable[[], Sequence[str]]) -> None:
        """Wait until a function returns nothing.

        Raises:
            DrainTimedOut: At the deadline.
        """
        shown: Sequence[str] = ()
        while True:
            self._check()
            if not (left := look()):
                return
            if left != shown:
                out.print(f"{_WAITS}{'; '.join(left)}", soft_wrap=True)
                shown = left
            if self._deadline is not None and time.monotonic() >= self._deadline:
                raise DrainTimedOut(
                    f"it is not drained in time: {'; '.join(left)}",
                    "wait for longer, or end what is running in the UI",
                )
            time.sleep(POLL_SECONDS)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
