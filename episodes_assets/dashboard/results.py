"""The Results page: a day's published rows, sorted, searched, compared, plotted and downloaded.

Whoever is signed in may use it; it changes nothing. It reads what consumers read, through their role, which
sees the schema `published` alone. The statements are in `results/rows.py`; the files to download are made in
`downloads`; why a row is what it is says `explain`.
"""

import datetime as dt
import itertools
import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from episodes_assets import failures
from episodes_assets.algorithms.declaration import Declaration
from episodes_assets.algorithms.registry import get_registry
from episodes_assets.dashboard.downloads import FORMATS, Format
from episodes_assets.dashboard.pages import Endpoint, explaining_errors, page, plot
from episodes_assets.days import ONE_DAY, parse_date
from episodes_assets.errors import BadDay, BadQuestion, BadSetting, EpisodesError, LimitReached, NotPublished
from episodes_assets.explanation.explaining import parse_algorithm, parse_epid
from episodes_assets.postgres.connect import Connection, connect_to_read, one_snapshot
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.results import rows
from episodes_assets.results.publications import Neighbours, PublishedDay, find_day, find_neighbours
from episodes_assets.results.rows import EPID, EpisodeDay, Mover, Order, Position, Selection, Title

ROWS_ON_A_PAGE = 50
MOVERS_SHOWN = 20  # that have risen, and as many that have fallen
DAYS_PLOTTED = 1_000
DAYS_LISTED = 31
LONGEST_SEARCH = 200
_LONGEST_POSITION = 500
# Each keeps a connection as long as somebody's network takes, and the role has few of them.
DOWNLOADS_AT_ONCE = 4
_TIMEOUTS = (
    "SELECT set_config('statement_timeout', '20s', false),"
    " set_config('idle_in_transaction_session_timeout', '60s', false)"
)

_STATUS = {BadDay: 400, BadQuestion: 400, NotPublished: 404}
_POSITION = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)?~(-?[0-9]+)", re.ASCII)
_FOLLOW = "follow a link of the page"


@dataclass(frozen=True)
class RowsQuery:
    """What a request asks for.

    Attributes:
        day: Of this day.
        algorithm: Of this algorithm.
        search: What ids, series and titles are searched for; empty for all rows.
        order: In which order.
        after: Where the page before ended; None for the first page.
    """

    day: dt.date
    algorithm: Declaration
    search: str
    order: Order
    after: Position | None = None

    @property
    def selection(self) -> Selection:
        """The rows, in no order."""
        return Selection(self.day, self.algorithm.algorithm_id, self.search)

    @property
    def metric(self) -> str:
        """The metric that is compared and plotted: the order's, or else the algorithm's first."""
        return next(iter(self.algorithm.columns)) if self.order.column == EPID else self.order.column

    def on(self, day: dt.date) -> "RowsQuery":
        """The same of another day."""
        return replace(self, day=day, after=None)

    def by(self, column: str) -> "RowsQuery":
        """The same rows by a column: the other way round if they are by it already."""
        is_descending = not self.order.is_descending if self.order.column == column else column != EPID
        return replace(self, order=Order(column, is_descending), after=None)

    def by_metric(self, column: str) -> "RowsQuery":
        """The same with the greatest values of a metric first."""
        return replace(self, order=Order(column, is_descending=True), after=None)

    def next(self, after: Position | None) -> "RowsQuery":
        """The page that begins after a position; the first page for None."""
        return replace(self, after=after)

    def address(self, tail: str = "") -> str:
        """Where it is shown.

        Args:
            tail: Which of the pages about it, such as `/movers`.
        """
        query = {
            "q": self.search,
            "sort": self.order.column,
            "order": "desc" if self.order.is_descending else "asc",
            "after": "" if self.after is None else _write_position(self.after),
        }
        said = {name: text for name, text in query.items() if text}
        return f"/results/{self.day}/{self.algorithm.name}{tail}?{urlencode(said)}"


def _usual_order(algorithm: Declaration) -> Order:
    return Order(next(iter(algorithm.columns)), is_descending=True)


def results_routes(results_dsn: str | None) -> list[Route]:
    """The routes of the page. Who reaches them is signed in.

    Args:
        results_dsn: The results, the consumers' role; None where the process has no such DSN.
    """
    pages = _ResultsPages(results_dsn)
    rows_of = "/results/{day}/{algorithm}"

    def get(path: str, endpoint: Endpoint, name: str) -> Route:
        return Route(path, explaining_errors(endpoint, _STATUS, _show_problem), methods=["GET"], name=name)

    return [
        get("/results", pages.ask, "results"),
        get(rows_of, pages.show, "results-rows"),
        get(rows_of + "/movers", pages.show_movers, "results-movers"),
        get(rows_of + "/episodes/{epid}", pages.show_episode, "results-episode"),
        get(rows_of + "/rows.{form}", pages.download, "results-download"),
    ]


class _ResultsPages:
    def __init__(self, results_dsn: str | None) -> None:
        self._dsn = results_dsn
        self._downloads = threading.BoundedSemaphore(DOWNLOADS_AT_ONCE)

    async def ask(self, request: Request) -> Response:
        """Where the form leads: to the address of what was typed into it; without a day, to the last one."""
        typed = {name: request.query_params.get(name, "").strip() for name in ("day", "algorithm")}
        algorithm = _algorithm(typed["algorithm"]) if typed["algorithm"] else next(iter(_algorithms()))
        day = parse_date(typed["day"]) if typed["day"] else await run_in_threadpool(self._find_latest)
        if day is None:
            return _page(request, nothing=True)
        asked = RowsQuery(day, algorithm, _search(request), _usual_order(algorithm))
        return RedirectResponse(asked.address(), HTTPStatus.SEE_OTHER)

    async def show(self, request: Request) -> Response:
        asked = _read(request)
        day, neighbours, found = await run_in_threadpool(self._read_rows, asked)
        return _page(request, asked=asked, published=day, neighbours=neighbours, found=found)

    async def show_movers(self, request: Request) -> Response:
        asked = _read(request)
        day, neighbours, found = await run_in_threadpool(self._read_movers, asked)
        return _page(
            request,
            asked=asked,
            published=day,
            neighbours=neighbours,
            movers=found,
            is_compared=neighbours.earlier == asked.day - ONE_DAY,
        )

    async def show_episode(self, request: Request) -> Response:
        asked, epid = _read(request), parse_epid(request.path_params["epid"])
        day, neighbours, title, days = await run_in_threadpool(self._read_episode, asked, epid)
        values = {each.day: rows.as_number((each.metrics or {}).get(asked.metric)) for each in days}
        return _page(
            request,
            asked=asked,
            published=day,
            neighbours=neighbours,
            episode=title,
            days=days[: -DAYS_LISTED - 1 : -1],
            first=days[0].day,
            worked=sum(each.metrics is not None for each in days),
            plot=plot(values),
        )

    async def download(self, request: Request) -> Response:
        asked, form = _read(request), request.path_params["form"]
        if form not in FORMATS:
            raise BadQuestion(f"{form!r} is not a form of the rows", f"choose one of {', '.join(FORMATS)}")
        chunks = self._download(asked, FORMATS[form])
        # What goes wrong before the first rows are there is still explained on a page.
        first = await run_in_threadpool(next, chunks, b"")
        return _Download(first, chunks, FORMATS[form], f"results-{asked.day}-{asked.algorithm.name}.{form}")

    def _find_latest(self) -> dt.date | None:
        with self._open() as results:
            return find_neighbours(results, dt.date.max).latest

    def _read_rows(self, asked: RowsQuery) -> tuple[PublishedDay, Neighbours, rows.Page]:
        with self._open() as results:
            day, neighbours = _require_published(results, asked.day)
            found = rows.read_page(results, asked.selection, asked.order, ROWS_ON_A_PAGE, asked.after)
            return day, neighbours, found

    def _read_movers(self, asked: RowsQuery) -> tuple[PublishedDay, Neighbours, list[Mover]]:
        with self._open() as results:
            day, neighbours = _require_published(results, asked.day)
            before = asked.day - ONE_DAY
            if neighbours.earlier != before:
                return day, neighbours, []
            found = rows.read_movers(results, asked.selection, asked.metric, before, MOVERS_SHOWN)
            return day, neighbours, found

    def _read_episode(
        self, asked: RowsQuery, epid: int
    ) -> tuple[PublishedDay, Neighbours, Title, list[EpisodeDay]]:
        with self._open() as results:
            day, neighbours = _require_published(results, asked.day)
            algorithm_id = asked.algorithm.algorithm_id
            days = rows.read_episode_days(results, epid, algorithm_id, asked.day, DAYS_PLOTTED)
            return day, neighbours, rows.find_title(results, epid), days

    def _download(self, asked: RowsQuery, form: Format) -> Generator[bytes]:
        if not self._downloads.acquire(blocking=False):
            raise LimitReached(
                f"{DOWNLOADS_AT_ONCE} downloads are under way, and no more go on at once",
                "try again in a minute",
            )
        try:
            with self._open() as results:
                _require_published(results, asked.day)
                parts = rows.stream_rows(results, asked.selection)
                yield from form.encode(parts, asked.selection, asked.algorithm)
        finally:
            self._downloads.release()

    @contextmanager
    def _open(self) -> Iterator[Connection]:
        """A connection whose statements all see one moment, and take a bounded time.

        Raises:
            BadSetting: If there is no DSN for it.
            DatabaseUnreachable: If the results cannot be reached.
        """
        if self._dsn is None:
            raise BadSetting(
                f"{Purpose.CONSUMER.setting} is not set, so the results cannot be looked at",
                "set it for the web server and run `episodes db init`; `episodes results` answers meanwhile",
            )
        with connect_to_read(self._dsn, Database.RESULTS) as results:
            results.execute(_TIMEOUTS)
            with one_snapshot(results):
                yield results


class _Download(StreamingResponse):
    """A file that is sent while it is made; however that ends, its connection is closed."""

    def __init__(self, first: bytes, chunks: Generator[bytes], form: Format, name: str) -> None:
        self._chunks = chunks
        super().__init__(
            itertools.chain([first], chunks),
            media_type=form.media_type,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._chunks.close)


def _require_published(results: Connection, day: dt.date) -> tuple[PublishedDay, Neighbours]:
    """The manifest of a day, and the published days around it.

    Raises:
        NotPublished: If it is not published.
    """
    found, neighbours = find_day(results, day), find_neighbours(results, day)
    if found is None:
        around = [each.isoformat() for each in (neighbours.earlier, neighbours.later) if each is not None]
        hint = f"the nearest published days are {' and '.join(around)}" if around else "no day is, so far"
        raise NotPublished(f"{day} has no published results", hint)
    return found, neighbours


def _read(request: Request) -> RowsQuery:
    """What an address asks for.

    Raises:
        BadDay: If it names no day.
        BadQuestion: If it names no algorithm, column or position, or searches for what cannot be found.
    """
    path, query = request.path_params, request.query_params
    algorithm = _algorithm(path["algorithm"])
    usual = _usual_order(algorithm)
    order = Order(query.get("sort", usual.column), query.get("order", "desc") == "desc")
    columns = (EPID, *algorithm.columns)
    if order.column not in columns:
        raise BadQuestion(
            f"{failures.shorten(order.column, LONGEST_SEARCH)!r} is not a column of {algorithm.name}",
            f"sort by one of {', '.join(columns)}",
        )
    if query.get("order", "desc") not in ("asc", "desc"):
        raise BadQuestion(
            f"{failures.shorten(query['order'], LONGEST_SEARCH)!r} is not an order", "choose asc or desc"
        )
    after = query.get("after", "")
    return RowsQuery(
        parse_date(path["day"]), algorithm, _search(request), order, _position(after) if after else None
    )


def _algorithms() -> list[Declaration]:
    return list(get_registry().by_id.values())


def _algorithm(text: str) -> Declaration:
    """An algorithm of this release, by its name or its number.

    Raises:
        BadQuestion: If there is none.
    """
    number = parse_algorithm(text)
    found = get_registry().by_id.get(number)
    if found is None:
        names = ", ".join(each.name for each in _algorithms())
        raise BadQuestion(
            f"there is no algorithm {number} that this release can use", f"choose one of {names}"
        )
    return found


def _search(request: Request) -> str:
    """What is searched for.

    Raises:
        BadQuestion: If no text in the database can contain it.
    """
    text = request.query_params.get("q", "").strip()
    if len(text) > LONGEST_SEARCH:
        raise BadQuestion(
            f"the text to search for has {len(text):,} characters", f"give at most {LONGEST_SEARCH}"
        )
    if "\0" in text:
        raise BadQuestion("the text to search for has a NUL character, which no title has", "leave it out")
    return text


def _position(text: str) -> Position:
    """Where a page begins, as `_write_position` has written it.

    Raises:
        BadQuestion: If it is none.
    """
    found = _POSITION.fullmatch(text) if len(text) <= _LONGEST_POSITION else None
    if found is None:
        raise BadQuestion(f"{failures.shorten(text, LONGEST_SEARCH)!r} is not where a page begins", _FOLLOW)
    return Position(None if found[1] is None else Decimal(found[1]), parse_epid(found[2]))


def _write_position(position: Position) -> str:
    return f"{'' if position.value is None else f'{position.value:f}'}~{position.epid}"


def _page(request: Request, *, status: int = 200, **context: Any) -> Response:  # noqa: ANN401
    return page(
        request,
        "results.html",
        status=status,
        algorithms=_algorithms(),
        typed={"q": "", **request.query_params, **request.path_params},
        longest_search=LONGEST_SEARCH,
        shown=shown,
        **context,
    )


def shown(value: object) -> str:
    """A number as the page shows it, exactly; a dash for a missing one."""
    if isinstance(value, Decimal):
        return f"{value:,f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)


def _show_problem(request: Request, error: EpisodesError, status: int) -> Response:
    """The error is shown beside the form."""
    return _page(request, problem=error, status=status)
