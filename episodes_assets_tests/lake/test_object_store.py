"""The lake in an object store: a real S3 server on loopback, and real processes."""

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from episodes_assets.errors import HostNotAllowed, HostUnreachable, LakeDamaged
from episodes_assets.explanation.records import DropRecord
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.episode import EpisodeInLake
from episodes_assets.lake.older_snapshots import OlderSnapshots
from episodes_assets.lake.opening import open_lake
from episodes_assets.lake.viewings import Viewings
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.lake_drops import read as drop_rows
from episodes_assets_tests.support.lake_drops import take as take_drop
from episodes_assets_tests.support.object_store import (
    FaultyProxy,
    ObjectStore,
    connect,
    object_store,
    put_object,
)
from episodes_assets_tests.support.older_snapshots import older
from episodes_assets_tests.support.run_process import own_process
from episodes_assets_tests.support.small_lakes import FIRST, ONE_DAY, read, rows_of, take
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process

URL = "s3://lake/of/tests"


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """An S3 server with a bucket."""
    with object_store() as made:
        yield made


@pytest.fixture
def server(store: ObjectStore) -> str:
    """Its address."""
    return store.address


@pytest.fixture
def proxy(store: ObjectStore) -> Iterator[FaultyProxy]:
    """A proxy to it on which requests are seen."""
    made = FaultyProxy(store)
    yield made
    made.close()


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A lake of its own in it."""
    connect(monkeypatch, server)
    return f"{URL}/{request.node.name}"


@pytest.mark.long
def test_versions_and_damage(url: str) -> None:
    lake = Viewings(url)
    assert lake.newest() is None
    first = take(lake, rows_of(FIRST, (1, 10), (2, 20)), days=[FIRST])
    second = take(lake, rows_of(FIRST, (1, 10), (1, 20)), days=[FIRST], reason="one came late")
    reader = Viewings(url)
    assert [read(reader, version, {1: FIRST}, FIRST)[0].num_rows for version in (first, second)] == [1, 2]
    file = lake.at(second).files[FIRST]
    assert lake.is_whole(file)
    put_object(f"{url}/viewings/{file.path}", None)
    with pytest.raises(LakeDamaged, match=f"{file.path} is gone"):
        read(Viewings(url), second, {1: FIRST}, FIRST)


ROWS = rows_of(FIRST, *((epid, epid) for epid in range(500)))


def take_until_interrupted(url: str) -> bool:
    """Take a day in a process that answers SIGINT as a command does; whether that has ended it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        take(Viewings(url), ROWS, days=[FIRST])
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.long
def test_an_upload_that_is_interrupted_does_not_harm_the_file_that_is_there(
    url: str, proxy: FaultyProxy, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a day that is taken again with the content of an older version, which a publication names."""
    lake = Viewings(url)
    version = take(lake, ROWS, days=[FIRST])
    take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    pids: SimpleQueue[int] = SimpleQueue()

    def interrupt(method: str) -> None:
        if method in ("POST", "PUT"):  # the upload begins
            proxy.before = lambda _: None
            os.kill(pids.get(), signal.SIGINT)

    proxy.before = interrupt
    connect(monkeypatch, proxy.address)
    with own_process(take_until_interrupted, url) as process:
        assert process.process.pid is not None
        pids.put(process.process.pid)
        assert process.result()
    connect(monkeypatch, server)
    reader = Viewings(url)
    file = reader.at(version).files[FIRST]
    assert reader.is_whole(file)
    assert take(reader, ROWS, days=[FIRST]) == version + 2
    assert reader.is_whole(file)
    named = {each.path for number in (version, version + 1) for each in reader.at(number).files.values()}
    assert all(path.startswith("_uploads/") for path, _ in reader.unnamed(named, -ONE_DAY))


@pytest.mark.long
def test_a_file_that_the_newest_version_has_is_uploaded_again_only_if_it_is_damaged(
    url: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(FIRST, (1, 10), (2, 20))
    version = take(Viewings(url), rows, days=[FIRST])
    connect(monkeypatch, proxy.address)
    lake = Viewings(url)
    assert take(lake, rows, days=[FIRST]) == version
    assert not {"POST", "PUT", "DELETE"} & {*proxy.methods}
    file = lake.at(version).files[FIRST]
    for content in (b"x" * file.size, b"x"):  # changed, cut
        put_object(f"{url}/viewings/{file.path}", content)
        assert not lake.is_whole(file)
        assert take(lake, rows, days=[FIRST]) == version
        assert lake.is_whole(file)


@pytest.mark.long
def test_drops_and_their_damage(url: str) -> None:
    lake = Drops(url)
    assert lake.find(FIRST) is None
    first, second = take_drop(lake, 1, day=FIRST), take_drop(lake, 1, 2, day=FIRST, reason="one was missing")
    reader = Drops(url)
    assert (reader.find(FIRST), reader.versions(FIRST)) == (second, [first, second])
    assert [drop_rows(reader, each)["epid"].tolist() for each in (first, second)] == [[1], [1, 2]]
    assert reader.read_quarantine(second)["reasons"].tolist() == ["epid_negative"]
    found = EpisodeInLake(url, -1).read_drops(FIRST, first.snapshot_id)
    assert isinstance(found.used, DropRecord)
    assert found.newest is not None
    assert (found.used.version, found.newest.version) == (1, 2)
    assert [each.rules for each in found.used.refused] == [("epid_negative",)]  # type: ignore[union-attr]
    put_object(f"{url}/episodes/{first.episodes.path}", None)
    named = {FIRST: {first.snapshot_id, second.snapshot_id}}
    assert reader.find_named(named)[FIRST].existing == {second.snapshot_id}
    with pytest.raises(LakeDamaged, match=f"{first.episodes.path} is gone"):
        drop_rows(reader, first)


@pytest.mark.slow
def test_older_snapshots_are_brought_in(url: str, tmp_path: Path) -> None:
    ids = [older(tmp_path, FIRST, 1), older(tmp_path, FIRST + ONE_DAY, 2)]
    lake = Drops(url)
    snapshots = OlderSnapshots(str(tmp_path))
    assert snapshots.bring_in(lake, "development", lambda _: None) == 2
    assert [each.snapshot_id for each in lake.require_all([FIRST, FIRST + ONE_DAY])] == ids
    assert lake.read_viewed(lake.require(FIRST)).tolist() == [3, 5]
    snapshots.require_brought_in(Drops(url))


@pytest.mark.long
def test_of_many_who_write_at_once_none_is_lost(url: str) -> None:
    def one(number: int) -> None:
        take(Viewings(url), rows_of(FIRST + number * ONE_DAY, (number, 1)), days=[FIRST + number * ONE_DAY])

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(one, range(6)))
    newest = Viewings(url).newest()
    assert newest is not None
    assert list(newest.files) == [FIRST + number * ONE_DAY for number in range(6)]


@pytest.mark.slow
def test_a_day_from_the_input_to_its_results(
    system: System, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.generate(day(1), day(2))
    with system.workers():
        result = system.materialize(day(1), day(2))
        assert result.success, failure(result)
    local = system.published()
    system.forget_everything()
    monkeypatch.setenv("EPISODES_LAKE_URL", url)
    with system.workers():
        result = system.materialize(day(1), day(2))
        assert result.success, failure(result)
    assert system.published().equals(local)
    shown = system.cli("lake", "status").stdout.split()
    assert {"episodes", "quarantine", "viewings"} <= {*shown}
    assert "are whole" in system.cli("lake", "verify").stdout


def test_a_store_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        connect(monkeypatch, f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(HostUnreachable, match="object store of s3://lake/of/tests/viewings does not answer"):
        Viewings(URL).newest()


def test_a_bucket_or_an_endpoint_that_nobody_opened_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPISODES_LAKE_URL", URL)
    with pytest.raises(HostNotAllowed, match="EPISODES_LAKE_URL -> s3://lake denied"):
        open_lake(load_settings())
    connect(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", "s3://lake")
    with pytest.raises(HostNotAllowed, match=r"EPISODES_LAKE_URL -> 127\.0\.0\.1:9 denied"):
        open_lake(load_settings())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example")
    with pytest.raises(HostNotAllowed, match=r"EPISODES_LAKE_URL -> store\.example:443 denied"):
        open_lake(load_settings())
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", "s3://lake,store.example:443")
    assert open_lake(load_settings()).url == URL
