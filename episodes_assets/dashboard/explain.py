"""The Explain page: why an episode's results of a day are what they are, or are not there.

Whoever is signed in may use it; it changes nothing. It reads the queue in sessions that cannot write, the
results through a role that can only read, and the lake's files. The records are read by `results/episode.py`,
the answer is found and worded in `explanation/`, as for `episodes explain`.
"""

import datetime as dt
from dataclasses import dataclass
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from episodes_assets.dashboard.pages import Endpoint, explaining_errors, page
from episodes_assets.days import parse_date
from episodes_assets.errors import BadDay, BadQuestion, BadSetting, EpisodesError
from episodes_assets.explanation.explaining import Explanation, explain, parse_algorithm, parse_epid
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.results.episode import read_episode

_STATUS = {BadDay: 400, BadQuestion: 400, BadSetting: 503}


@dataclass(frozen=True)
class ExplainSources:
    """Where the page finds what is on record.

    Attributes:
        queue_dsn: The queue.
        results_dsn: The results, the reader's role; None where the process has no such DSN.
        lake_url: The lake, on a host that may be reached.
        quarantine_limit: The share of a drop refused above which nothing is built on it.
    """

    queue_dsn: str
    results_dsn: str | None
    lake_url: str
    quarantine_limit: float


def read_explanations(
    sources: ExplainSources, day: dt.date, epid: int, algorithm_id: int | None
) -> list[Explanation]:
    """Why the rows of an episode on a day are there, or are not.

    Raises:
        BadSetting: If there is no DSN for the results.
        DatabaseUnreachable: If a database cannot be reached.
    """
    if sources.results_dsn is None:
        raise BadSetting(
            f"{Purpose.RESULTS_READER.setting} is not set, so the results cannot be looked at",
            "set it for the web server and run `episodes db init`; `episodes explain` answers meanwhile",
        )
    with (
        connect_to_read(sources.queue_dsn, Database.QUEUE) as queue,
        connect_to_read(sources.results_dsn, Database.RESULTS) as results,
    ):
        records = read_episode(
            queue,
            results,
            sources.lake_url,
            day,
            epid,
            today=dt.datetime.now(dt.UTC).date(),
            quarantine_limit=sources.quarantine_limit,
        )
    return explain(records, algorithm_id)


def explain_routes(sources: ExplainSources) -> list[Route]:
    """The routes of the page. Who reaches them is signed in."""
    pages = _ExplainPages(sources)
    found = "/explain/{day}/{epid}"

    def get(path: str, endpoint: Endpoint, name: str) -> Route:
        return Route(path, explaining_errors(endpoint, _STATUS, _show_problem), methods=["GET"], name=name)

    return [
        get("/explain", pages.ask, "explain"),
        get(found, pages.show, "explain-episode"),
        get(found + "/{algorithm}", pages.show, "explain-row"),
    ]


class _ExplainPages:
    def __init__(self, sources: ExplainSources) -> None:
        self._sources = sources

    async def ask(self, request: Request) -> Response:
        """The form; what was typed into it leads to the answer's own address."""
        typed = {name: request.query_params.get(name, "").strip() for name in ("day", "epid")}
        if not all(typed.values()):
            return page(request, "explain.html", typed=typed, found=[], problem=None)
        return RedirectResponse(
            f"/explain/{parse_date(typed['day'])}/{parse_epid(typed['epid'])}", HTTPStatus.SEE_OTHER
        )

    async def show(self, request: Request) -> Response:
        typed = request.path_params
        algorithm = typed.get("algorithm")
        found = await run_in_threadpool(
            read_explanations,
            self._sources,
            parse_date(typed["day"]),
            parse_epid(typed["epid"]),
            None if algorithm is None else parse_algorithm(algorithm),
        )
        return page(request, "explain.html", typed=typed, found=found, problem=None)


def _show_problem(request: Request, error: EpisodesError, status: int) -> Response:
    """The error is shown beside the form."""
    typed = {**request.query_params, **request.path_params}
    return page(request, "explain.html", status=status, typed=typed, found=[], problem=error)
