"""The Fleet page: days in work, workers, throughput, held jobs; and what operators may do about them.

It reads from the queue no more than the page shows. The statements are in `ledger/`.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from episodes_assets import errors
from episodes_assets.dashboard import pages
from episodes_assets.dashboard.pages import Endpoint, Sparkline, draw, explaining_errors, page
from episodes_assets.days import parse_date
from episodes_assets.ledger import held as held_jobs
from episodes_assets.ledger import progress as ledger_progress
from episodes_assets.ledger.batches import read_throughput
from episodes_assets.ledger.messages import read_message_figures
from episodes_assets.ledger.workers import Worker, read_workers
from episodes_assets.outbox.records import OpenAlert, read_open_alerts
from episodes_assets.postgres.connect import Connection, connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database

DAYS_SHOWN = 30
FINISHED_SHOWN = 3
WORKERS_SHOWN = 100
HELD_OF_EACH_DAY = 3
HELD_SHOWN = 12
HELD_ON_A_PAGE = 50
ERRORS_SHOWN = 10
# How long a worker is shown after it has ended or fallen silent.
GONE_FOR = dt.timedelta(minutes=10)
BUCKET_SECONDS = 10
BUCKETS = 60


@dataclass(frozen=True)
class Fleet:
    """The fleet at one moment.

    Attributes:
        now: That moment, by the queue's clock.
        days: Days that are not finished, the first ones.
        more_days: How many more there are.
        finished: The days that were planned last among the finished ones.
        jobs_per_second: The throughput of all days together.
        ends_at: When all will be finished at that throughput; None when that is unknown.
        workers: Workers that live, and those that have ended or fallen silent lately.
        alive: How many live.
        more_workers: How many are not shown.
        throughput: Jobs a second over the last minutes.
        held: Some of the held jobs of each day.
        held_total: How many jobs are held, waived ones not counted.
        alerts: What people are told of, the most urgent first.
    """

    now: dt.datetime
    days: Sequence[ledger_progress.DayProgress]
    more_days: int
    finished: Sequence[ledger_progress.Progress]
    jobs_per_second: float
    ends_at: dt.datetime | None
    workers: Sequence[Worker]
    alive: int
    more_workers: int
    throughput: Sparkline
    held: Sequence[held_jobs.HeldJob]
    held_total: int
    alerts: Sequence[OpenAlert]


@dataclass(frozen=True)
class HeldPage:
    """Some of a day's held and waived jobs.

    Attributes:
        counts: The day's jobs by state.
        errors: What jobs of it are held or waived for, the most frequent first.
        jobs: Some of them.
        next_after: Where the next ones begin; None when these are the last.
        is_first: Whether these are the first.
    """

    counts: ledger_progress.Progress
    errors: Sequence[held_jobs.SharedError]
    jobs: Sequence[held_jobs.HeldJob]
    next_after: int | None
    is_first: bool


def read_fleet(queue_dsn: str) -> Fleet:
    """The fleet as it is now.

    Raises:
        DatabaseUnreachable: If the queue cannot be reached.
        NotProvisioned: If it has no schema.
    """
    with connect_to_read(queue_dsn, Database.QUEUE) as queue:
        progress = ledger_progress.read_fleet_progress(queue)
        unfinished = [day for day in progress.days if not day.counts.is_done]
        shown = unfinished[:DAYS_SHOWN]
        done = sorted((day.counts for day in progress.days if day.counts.is_done), key=lambda d: d.plan_id)
        workers = read_workers(queue, GONE_FOR)
        return Fleet(
            now=progress.now,
            days=shown,
            more_days=len(unfinished) - len(shown),
            finished=done[: -FINISHED_SHOWN - 1 : -1],
            jobs_per_second=progress.jobs_per_second,
            ends_at=progress.ends_at,
            workers=workers[:WORKERS_SHOWN],
            alive=sum(worker.is_alive for worker in workers),
            more_workers=max(len(workers) - WORKERS_SHOWN, 0),
            throughput=draw(read_throughput(queue, bucket_seconds=BUCKET_SECONDS, buckets=BUCKETS)),
            held=_some_held(queue, [day.counts for day in unfinished]),
            held_total=sum(day.counts.held for day in unfinished),
            alerts=read_open_alerts(queue),
        )


def _some_held(queue: Connection, days: Sequence[ledger_progress.Progress]) -> list[held_jobs.HeldJob]:
    plans = [day.plan_id for day in days if day.held][:HELD_SHOWN]
    return held_jobs.read_held(queue, plans, each=HELD_OF_EACH_DAY, most=HELD_SHOWN) if plans else []


def read_day(queue_dsn: str, day: dt.date) -> ledger_progress.Progress:
    """How far a day is.

    Raises:
        DayNotPlanned: If it has no plan.
        DatabaseUnreachable: If the queue cannot be reached.
    """
    with connect_to_read(queue_dsn, Database.QUEUE) as queue:
        return _require_progress(queue, day)


def read_held_page(queue_dsn: str, day: dt.date, after: int) -> HeldPage:
    """A page of a day's held and waived jobs, those after a position (keyset pagination).

    Raises:
        DayNotPlanned: If it has no plan.
        DatabaseUnreachable: If the queue cannot be reached.
    """
    with connect_to_read(queue_dsn, Database.QUEUE) as queue:
        counts = _require_progress(queue, day)
        found = held_jobs.read_held(queue, [counts.plan_id], each=HELD_ON_A_PAGE + 1, after=after)
        jobs = found[:HELD_ON_A_PAGE]
        return HeldPage(
            counts=counts,
            errors=held_jobs.read_shared_errors(queue, counts.plan_id, ERRORS_SHOWN),
            jobs=jobs,
            next_after=jobs[-1].position if len(found) > len(jobs) else None,
            is_first=after < 0,
        )


def _require_progress(queue: Connection, day: dt.date) -> ledger_progress.Progress:
    for progress in ledger_progress.read_progress(queue, [day]):
        return progress
    raise errors.DayNotPlanned(f"{day} has no planned jobs", f"materialise episode_jobs of {day}")


_LOG = logging.getLogger(__name__)
LIVE = "/fleet/live"
LONGEST_REASON = 500
_STATUS = {
    errors.BadDay: 404,
    errors.DayNotPlanned: 404,
    errors.JobNotHeld: 404,
    errors.ReasonMissing: 400,
    errors.NothingToCancel: 409,
}
_BIGINT, _SMALLINT = 2**63, 2**15
P = ParamSpec("P")
T = TypeVar("T")


def fleet_routes(queue_dsn: str, environment: str) -> list[Route]:
    """The routes of the page. The auth gate lets only users reach them, and only operators those by POST.

    Args:
        queue_dsn: The queue, orchestrator's role.
        environment: Of this process; a queue of another environment is not changed.
    """
    handlers = _FleetPages(queue_dsn, environment)
    day = "/fleet/days/{day}"

    def get(path: str, endpoint: Endpoint, name: str) -> Route:
        return Route(path, explaining_errors(endpoint, _STATUS, _show_problem), methods=["GET"], name=name)

    def post(path: str, endpoint: Endpoint, name: str) -> Route:
        return Route(path, explaining_errors(endpoint, _STATUS, _show_problem), methods=["POST"], name=name)

    return [
        get("/fleet", handlers.show, "fleet"),
        get(LIVE, handlers.show_live, "fleet-live"),
        get(day + "/held", handlers.show_held, "fleet-held"),
        get(day + "/cancel", handlers.ask_to_cancel, "fleet-ask-to-cancel"),
        post(day + "/cancel", handlers.cancel, "fleet-cancel"),
        post(day + "/retry", handlers.retry_day, "fleet-retry-day"),
        post(day + "/jobs/{epid}/{algorithm_id}/retry", handlers.retry_job, "fleet-retry-job"),
    ]


class _FleetPages:
    def __init__(self, queue_dsn: str, environment: str) -> None:
        self._queue_dsn = queue_dsn
        self._environment = environment

    async def show(self, request: Request) -> Response:
        return await self._fleet(request, "fleet.html", notice=_notice(request))

    async def show_live(self, request: Request) -> Response:
        return await self._fleet(request, "fleet_live.html")

    async def _fleet(self, request: Request, template: str, notice: str = "") -> Response:
        fleet, messages = await asyncio.gather(
            run_in_threadpool(read_fleet, self._queue_dsn), read_message_figures(self._queue_dsn)
        )
        return page(request, template, say=pages, fleet=fleet, messages=messages, notice=notice)

    async def show_held(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        held = await run_in_threadpool(
            read_held_page, self._queue_dsn, _day(request), _number(after, 2**31) if after else -1
        )
        return page(request, "fleet_held.html", say=pages, held=held, notice=_notice(request))

    async def ask_to_cancel(self, request: Request) -> Response:
        counts = await run_in_threadpool(read_day, self._queue_dsn, _day(request))
        return page(request, "fleet_cancel.html", say=pages, counts=counts, longest_reason=LONGEST_REASON)

    async def cancel(self, request: Request) -> Response:
        day, by = _day(request), request.user.recorded_name
        async with request.form(max_files=0, max_fields=5) as form:
            reason = str(form.get("reason", ""))[:LONGEST_REASON]

        cancelled = await self._change(held_jobs.cancel_day, day, reason=reason, cancelled_by=by)
        _LOG.info("%s cancelled %d jobs of %s", by, cancelled, day)
        return _back("cancelled", day, cancelled)

    async def retry_day(self, request: Request) -> Response:
        day = _day(request)

        released = await self._change(held_jobs.retry_held_jobs, day)
        _LOG.info("%s lets %d held jobs of %s be tried again", request.user.name, released, day)
        return _back("retried", day, released)

    async def retry_job(self, request: Request) -> Response:
        day = _day(request)
        epid = _number(request.path_params["epid"], _BIGINT)
        algorithm_id = _number(request.path_params["algorithm_id"], _SMALLINT)

        await self._change(held_jobs.retry_held_job, day, epid, algorithm_id)
        _LOG.info(
            "%s lets epid %d of %s be tried again for algorithm %d",
            request.user.name,
            epid,
            day,
            algorithm_id,
        )
        return _back("retried", day, 1)

    async def _change(
        self, change: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def work() -> T:
            with connect_to_write(
                self._queue_dsn, Database.QUEUE, self._environment, autocommit=True
            ) as queue:
                return change(queue, *args, **kwargs)

        return await run_in_threadpool(work)


def _show_problem(request: Request, error: errors.EpisodesError, status: int) -> Response:
    if request.url.path == LIVE:
        return PlainTextResponse(str(error), status)
    return page(request, "fleet_problem.html", status=status, error=error)


def _day(request: Request) -> dt.date:
    return parse_date(request.path_params["day"])


def _number(text: str, limit: int) -> int:
    """A whole number within the range of the database's type."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) < limit):
        raise errors.JobNotHeld(f"{text!r} names no job", "follow a link of the Fleet page")
    return int(text)


def _back(done: str, day: dt.date, jobs: int) -> Response:
    """Redirect to the page, so that a reload repeats nothing (post/redirect/get)."""
    return RedirectResponse(
        "/fleet?" + urlencode({"done": done, "day": day, "jobs": jobs}), HTTPStatus.SEE_OTHER
    )


def _notice(request: Request) -> str:
    """The notice for an address made by `_back`; empty for any other. It has no text of the address."""
    query = request.query_params
    try:
        day, jobs = parse_date(query.get("day", "")), pages.jobs(_number(query.get("jobs", ""), 2**31))
    except errors.EpisodesError:
        return ""
    return {
        "retried": f"Back with the fleet: {jobs} of {day}.",
        "cancelled": f"Cancelled and held: {jobs} of {day}. Retrying them lets the day go on.",
    }.get(query.get("done", ""), "")
