"""The Fleet page: days in work, workers, throughput, held jobs; and what operators may do about them."""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from episodes_assets.dashboard import wording
from episodes_assets.dashboard.fleet_view import read_day, read_fleet, read_held_page
from episodes_assets.dashboard.pages import page
from episodes_assets.days import parse_date
from episodes_assets.errors import (
    BadDay,
    DayNotPlanned,
    EpisodesError,
    JobNotHeld,
    NothingToCancel,
    ReasonMissing,
)
from episodes_assets.failures import explain
from episodes_assets.fleet.cancel import cancel_day
from episodes_assets.fleet.message_figures import read_message_figures
from episodes_assets.fleet.retry import retry_held_job, retry_held_jobs
from episodes_assets.postgres.connect import Connection, connect_to_write
from episodes_assets.postgres.databases import Database

_LOG = logging.getLogger(__name__)

LIVE = "/fleet/live"
SEE_OTHER = 303
AWAY = 503
LONGEST_REASON = 500
_STATUS = {BadDay: 404, DayNotPlanned: 404, JobNotHeld: 404, ReasonMissing: 400, NothingToCancel: 409}
_BIGINT, _SMALLINT = 2**63, 2**15

Endpoint = Callable[[Request], Awaitable[Response]]
P = ParamSpec("P")
T = TypeVar("T")


def fleet_routes(queue_dsn: str, environment: str) -> list[Route]:
    """The routes of the page. Who reaches them is signed in, and who changes something is an operator.

    Args:
        queue_dsn: The queue, orchestrator's role.
        environment: Of this process; it changes nothing in a queue of another one.
    """
    pages = _FleetPages(queue_dsn, environment)
    day = "/fleet/days/{day}"

    def get(path: str, endpoint: Endpoint, name: str) -> Route:
        return Route(path, _plainly(endpoint), methods=["GET"], name=name)

    def post(path: str, endpoint: Endpoint, name: str) -> Route:
        return Route(path, _plainly(endpoint), methods=["POST"], name=name)

    return [
        get("/fleet", pages.show, "fleet"),
        get(LIVE, pages.show_live, "fleet-live"),
        get(day + "/held", pages.show_held, "fleet-held"),
        get(day + "/cancel", pages.ask_to_cancel, "fleet-ask-to-cancel"),
        post(day + "/cancel", pages.cancel, "fleet-cancel"),
        post(day + "/retry", pages.retry_day, "fleet-retry-day"),
        post(day + "/jobs/{epid}/{algorithm_id}/retry", pages.retry_job, "fleet-retry-job"),
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
        return page(request, template, say=wording, fleet=fleet, messages=messages, notice=notice)

    async def show_held(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        held = await run_in_threadpool(
            read_held_page, self._queue_dsn, _day(request), _number(after, 2**31) if after else -1
        )
        return page(request, "fleet_held.html", say=wording, held=held, notice=_notice(request))

    async def ask_to_cancel(self, request: Request) -> Response:
        counts = await run_in_threadpool(read_day, self._queue_dsn, _day(request))
        return page(request, "fleet_cancel.html", say=wording, counts=counts, longest_reason=LONGEST_REASON)

    async def cancel(self, request: Request) -> Response:
        day, by = _day(request), request.user.recorded_name
        async with request.form(max_files=0, max_fields=5) as form:
            reason = str(form.get("reason", ""))[:LONGEST_REASON]

        cancelled = await self._change(cancel_day, day, reason=reason, cancelled_by=by)
        _LOG.info("%s cancelled %d jobs of %s", by, cancelled, day)
        return _back("cancelled", day, cancelled)

    async def retry_day(self, request: Request) -> Response:
        day = _day(request)

        released = await self._change(retry_held_jobs, day)
        _LOG.info("%s lets %d held jobs of %s be tried again", request.user.name, released, day)
        return _back("retried", day, released)

    async def retry_job(self, request: Request) -> Response:
        day = _day(request)
        epid = _number(request.path_params["epid"], _BIGINT)
        algorithm_id = _number(request.path_params["algorithm_id"], _SMALLINT)

        await self._change(retry_held_job, day, epid, algorithm_id)
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


def _plainly(endpoint: Endpoint) -> Endpoint:
    """An error whose cause is known becomes a page that says so."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Exception as raised:
            error = explain(raised)
            if error is None:
                raise
            status = _STATUS.get(type(error), AWAY)
            if request.url.path == LIVE:
                return PlainTextResponse(str(error), status)
            return page(request, "fleet_problem.html", status=status, error=error)

    return answer


def _day(request: Request) -> dt.date:
    return parse_date(request.path_params["day"])


def _number(text: str, limit: int) -> int:
    """A whole number that the database can compare with its own."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) < limit):
        raise JobNotHeld(f"{text!r} names no job", "follow a link of the Fleet page")
    return int(text)


def _back(done: str, day: dt.date, jobs: int) -> Response:
    """To the page again, so that a reload does nothing twice. What was done is said in our own words."""
    return RedirectResponse("/fleet?" + urlencode({"done": done, "day": day, "jobs": jobs}), SEE_OTHER)


def _notice(request: Request) -> str:
    """What an address made by `_back` says; of any other, nothing."""
    query = request.query_params
    try:
        day, jobs = parse_date(query.get("day", "")), wording.jobs(_number(query.get("jobs", ""), 2**31))
    except EpisodesError:
        return ""
    return {
        "retried": f"Back with the fleet: {jobs} of {day}.",
        "cancelled": f"Cancelled and held: {jobs} of {day}. Retrying them lets the day go on.",
    }.get(query.get("done", ""), "")
