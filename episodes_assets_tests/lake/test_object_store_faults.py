"""An object store that goes away at any request: it is named within a stated time, and nothing is lost."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from episodes_assets.errors import HostUnreachable
from episodes_assets.lake.viewings import Viewings
from episodes_assets_tests.lake.object_store import (
    BUCKET,
    ObjectStore,
    Way,
    answer,
    connect,
    hang_up,
    object_store,
)
from episodes_assets_tests.lake.small_lakes import FIRST, ONE_DAY, read, rows_of, take

Fault = Callable[[BaseHTTPRequestHandler, Callable[[], None]], None]
DAYS = [FIRST, FIRST + ONE_DAY]
# Within it whoever reads or writes is told: three more tries, and half a minute for each of Delta and Arrow.
GIVEN_UP_SECONDS = 90.0
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
def way(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    made = Way(store)
    connect(monkeypatch, made.address)
    yield made
    made.close()


@pytest.fixture
def url(way: Way, request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{re.sub('[^a-z_]', '-', request.node.name)}"


def write(url: str, seconds: int) -> int:
    rows = [rows_of(day, *((1, second) for second in range(seconds))) for day in DAYS]
    return take(Viewings(url), *rows, days=DAYS)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_while_it_is_written_loses_nothing(way: Way, url: str, fault: Fault) -> None:
    last = write(url, 1)
    before = Viewings(url).newest()
    for after in range(0, 64, 4):
        seconds = after + 2
        way.fail(after, fault)
        began = time.monotonic()
        try:
            write(url, seconds)
            told = ""
        except HostUnreachable as error:
            told = str(error)
        took = time.monotonic() - began
        hit = way.requests > after
        way.clear()
        newest = Viewings(url).newest()
        assert newest is not None
        assert took < GIVEN_UP_SECONDS
        if told:
            assert "object store of s3://lake/" in told
            # Where the answer alone was lost, it may be there.
            assert newest == before or [file.rows for file in newest.files.values()] == [seconds, seconds]
        # Once more, and each version is there once.
        assert write(url, seconds) in (last, last + 1)
        before = Viewings(url).newest()
        assert before is not None
        assert [file.rows for file in before.files.values()] == [seconds, seconds]
        assert before.number <= last + 1
        last = before.number
        if not hit:
            break
    assert not hit, "the fault has met every request"
    assert after > 8


@pytest.mark.parametrize("fault", FAULTS[:-1])
def test_a_store_that_fails_while_it_is_read_is_named(way: Way, url: str, fault: Fault) -> None:
    version = write(url, 5)
    taken = read(Viewings(url), version, {1: FIRST}, DAYS[-1])
    for after in range(60):
        way.fail(after, fault)
        began = time.monotonic()
        try:
            assert read(Viewings(url), version, {1: FIRST}, DAYS[-1]) == taken
        except HostUnreachable as error:
            assert "object store of s3://lake/" in str(error)  # noqa: PT017  both are right
        assert time.monotonic() - began < GIVEN_UP_SECONDS
        if way.requests <= after:
            break
    assert after > 3
    way.clear()
    assert read(Viewings(url), version, {1: FIRST}, DAYS[-1]) == taken


@pytest.mark.slow
def test_a_store_that_stands_still_is_given_up_and_works_when_it_goes_on(
    store: ObjectStore, way: Way, url: str
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
