"""The pages Profiles: where steps and micro-batches spent their time; and how operators ask for more.

Whoever is signed in may look: a profile names functions, files and lines and holds no data. Asking for one
slows workers down a little, so only operators may, by POST, within the bounds of `ledger/profiles.py`. What a
profile shows is found by `profiling/`; names in it come from whatever code was running, and are escaped.
"""

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from episodes_assets.dashboard import pages
from episodes_assets.dashboard.pages import Endpoint, explaining_errors, page
from episodes_assets.errors import EpisodesError, ProfileMissing, ProfilerUnavailable
from episodes_assets.ledger import profiles
from episodes_assets.ledger.profiles import ProfileRow
from episodes_assets.postgres.connect import Connection, connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database
from episodes_assets.profiling.engines import Sampling
from episodes_assets.profiling.stacks import Profile, flame_graph

PROFILES_SHOWN = 100
HOT_LINES_SHOWN = 30
BOXES_SHOWN = 3_000
BATCHES = 3
ATTACHED = Sampling(seconds=30)
OF_A_BATCH = Sampling(seconds=60)
_STATUS = {ProfileMissing: 404, ProfilerUnavailable: 409}
_BIGINT = 2**63


def profile_routes(queue_dsn: str, environment: str) -> list[Route]:
    """The routes of the pages. The auth gate lets only users reach them, and only operators those by POST.

    Args:
        queue_dsn: The queue, orchestrator's role.
        environment: Of this process; a queue of another environment is not changed.
    """
    handlers = _ProfilePages(queue_dsn, environment)
    one = "/profiles/{number}"

    def route(path: str, endpoint: Endpoint, method: str, name: str) -> Route:
        return Route(path, explaining_errors(endpoint, _STATUS, _show_problem), methods=[method], name=name)

    return [
        route("/profiles", handlers.show_all, "GET", "profiles"),
        route("/profiles/batches", handlers.ask_for_batches, "POST", "profile-batches"),
        route("/profiles/workers/{worker}", handlers.ask_for_worker, "POST", "profile-worker"),
        route(one, handlers.show, "GET", "profile"),
        route(one + "/speedscope.json", handlers.download, "GET", "profile-speedscope"),
    ]


class _ProfilePages:
    def __init__(self, queue_dsn: str, environment: str) -> None:
        self._queue_dsn = queue_dsn
        self._environment = environment

    async def show_all(self, request: Request) -> Response:
        def read() -> Sequence[ProfileRow]:
            with connect_to_read(self._queue_dsn, Database.QUEUE) as queue:
                return profiles.read_profiles(queue, PROFILES_SHOWN)

        rows = await run_in_threadpool(read)
        return page(request, "profiles.html", say=pages, rows=rows)

    async def show(self, request: Request) -> Response:
        row, profile, picture = await run_in_threadpool(self._read_drawn, _number(request))
        return page(
            request,
            "profile.html",
            say=pages,
            row=row,
            profile=profile,
            lines=profile.hot_lines(HOT_LINES_SHOWN) if profile else [],
            picture=picture,
        )

    async def download(self, request: Request) -> Response:
        number = _number(request)
        row, profile = await run_in_threadpool(self._read, number)
        if profile is None:
            raise ProfileMissing(
                f"profile {number} holds nothing ({row.problem or row.state})", "take another"
            )
        text = await run_in_threadpool(json.dumps, profile.speedscope(f"{number}: {row.title}"))
        return Response(
            text,
            media_type="application/json",
            headers={
                "Cache-Control": "no-store",
                "Content-Disposition": f'attachment; filename="profile-{number}.speedscope.json"',
            },
        )

    async def ask_for_batches(self, request: Request) -> Response:
        by = request.user.recorded_name
        await self._change(
            lambda queue: profiles.request_batches(queue, BATCHES, OF_A_BATCH, requested_by=by)
        )
        return RedirectResponse("/profiles", HTTPStatus.SEE_OTHER)

    async def ask_for_worker(self, request: Request) -> Response:
        worker, by = request.path_params["worker"], request.user.recorded_name
        number = await self._change(
            lambda queue: profiles.request_worker(queue, worker, ATTACHED, requested_by=by)
        )
        return RedirectResponse(f"/profiles/{number}", HTTPStatus.SEE_OTHER)

    def _read(self, number: int) -> tuple[ProfileRow, Profile | None]:
        with connect_to_read(self._queue_dsn, Database.QUEUE) as queue:
            return profiles.read_profile(queue, number)

    def _read_drawn(self, number: int) -> tuple[ProfileRow, Profile | None, str]:
        row, profile = self._read(number)
        return row, profile, flame_graph(profile, BOXES_SHOWN) if profile and profile.stacks else ""

    async def _change(self, change: Callable[[Connection], object]) -> object:
        def work() -> object:
            with connect_to_write(
                self._queue_dsn, Database.QUEUE, self._environment, autocommit=True
            ) as queue:
                return change(queue)

        return await run_in_threadpool(work)


def _number(request: Request) -> int:
    text = request.path_params["number"]
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < _BIGINT):
        raise ProfileMissing("that names no profile", "follow a link of the page Profiles")
    return int(text)


def _show_problem(request: Request, error: EpisodesError, status: int) -> Response:
    return page(request, "profiles_problem.html", status=status, error=error)
