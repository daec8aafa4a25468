"""An object store that goes away at any request: it is named within a stated time, and nothing is lost."""

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler

import pytest

from episodes_assets.errors import HostUnreachable
from episodes_assets.lake.viewings import Viewings
from episodes_assets_tests.support.object_store import (
    BUCKET,
    FaultyProxy,
    ObjectStore,
    answer,
    connect,
    hang_up,
    object_store,
)
from episodes_assets_tests.support.small_lakes import FIRST, ONE_DAY, read, rows_of, take

Fault = Callable[[BaseHTTPRequestHandler, Callable[[], None]], None]
DAYS = [FIRST, FIRST + ONE_DAY]
# The methods that change what a store holds.
CHANGING = {"PUT", "POST", "DELETE"}
# Within it whoever reads or writes is told: three more tries, and half a minute for each of Delta and Arrow.
GIVEN_UP_SECONDS = 90.0
# Both clients wait before they try again: of two dozen faults, that is five minutes.
pytestmark = [pytest.mark.process, pytest.mark.timeout(900), pytest.mark.slow]
FAULTS = [
    pytest.param(answer(403), id="refused"),
    pytest.param(answer(500), id="broken", marks=pytest.mark.slow),
    pytest.param(answer(503), id="busy", marks=pytest.mark.slow),
    pytest.param(hang_up, id="hangs up", marks=pytest.mark.slow),
    pytest.param(answer(500, is_done=True), id="done and broken", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as made:
        yield made


@pytest.fixture
def proxy(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    made = FaultyProxy(store)
    connect(monkeypatch, made.address)
    yield made
    made.close()


@pytest.fixture
def url(proxy: FaultyProxy, request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{re.sub('[^a-z_]', '-', request.node.name)}"


def write(url: str, seconds: int) -> int:
    rows = [rows_of(day, *((1, second) for second in range(seconds))) for day in DAYS]
    return take(Viewings(url), *rows, days=DAYS)


def beginnings(methods: Sequence[str]) -> list[int]:
    """After how many requests to let a fault begin, of those that an undisturbed writing makes.

    At the first and the last one, at each that changes the store and at the one behind it. Where none is left
    to meet comes last, with room for one that was tried again.
    """
    changing = [number for number, method in enumerate(methods) if method in CHANGING]
    some = {0, *changing, *(number + 1 for number in changing), len(methods) - 1}
    return [*sorted(some), len(methods), 2 * len(methods)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_while_it_is_written_loses_nothing(
    proxy: FaultyProxy, url: str, fault: Fault
) -> None:
    write(f"{url}/calm", 1)
    proxy.clear()
    written = write(f"{url}/calm", 2)
    methods = tuple(proxy.methods)
    assert {"POST", "PUT"} <= set(methods)
    for after in beginnings(methods):
        # A lake of its own, so that each writing makes the same requests: a longer log takes more.
        lake = f"{url}/{after}"
        assert write(lake, 1) == written - 1
        before = Viewings(lake).newest()
        proxy.fail(after, fault)
        began = time.monotonic()
        try:
            write(lake, 2)
            told = ""
        except HostUnreachable as error:
            told = str(error)
        took = time.monotonic() - began
        is_hit = proxy.requests > after
        proxy.clear()
        assert took < GIVEN_UP_SECONDS
        newest = Viewings(lake).newest()
        assert newest is not None
        if told:
            assert is_hit
            assert "object store of s3://lake/" in told
        # Where the answer alone was lost, it may be there although an error was told.
        if not told or newest != before:
            assert [file.rows for file in newest.files.values()] == [2, 2]
        # Once more, and the version is there once.
        assert write(lake, 2) == written
        newest = Viewings(lake).newest()
        assert newest is not None
        assert newest.number == written
        assert [file.rows for file in newest.files.values()] == [2, 2]
        if not is_hit:
            break
    assert not is_hit, "the fault has met every request"
    assert after >= len(methods)


@pytest.mark.parametrize("fault", FAULTS[:-1])
def test_a_store_that_fails_while_it_is_read_is_named(proxy: FaultyProxy, url: str, fault: Fault) -> None:
    version = write(url, 5)
    taken = read(Viewings(url), version, {1: FIRST}, DAYS[-1])
    for after in range(60):
        proxy.fail(after, fault)
        began = time.monotonic()
        try:
            assert read(Viewings(url), version, {1: FIRST}, DAYS[-1]) == taken
        except HostUnreachable as error:
            assert "object store of s3://lake/" in str(error)  # noqa: PT017  both are right
        assert time.monotonic() - began < GIVEN_UP_SECONDS
        is_hit = proxy.requests > after
        if not is_hit:
            break
    assert not is_hit, "the fault has met every request"
    assert after > 3
    proxy.clear()
    assert read(Viewings(url), version, {1: FIRST}, DAYS[-1]) == taken


def test_a_store_that_stands_still_is_given_up_and_works_when_it_goes_on(
    store: ObjectStore, proxy: FaultyProxy, url: str
) -> None:
    version = write(url, 5)
    taken = read(Viewings(url), version, {1: FIRST}, DAYS[-1])
    store.process.send_signal(signal.SIGSTOP)
    try:
        for do in (lambda: write(url, 6), lambda: read(Viewings(url), version, {1: FIRST}, DAYS[-1])):
            began = time.monotonic()
            with pytest.raises(HostUnreachable, match="object store of s3://lake/"):
                do()
            assert time.monotonic() - began < GIVEN_UP_SECONDS
    finally:
        store.process.send_signal(signal.SIGCONT)
    assert read(Viewings(url), version, {1: FIRST}, DAYS[-1]) == taken
    assert write(url, 6) == version + 1
