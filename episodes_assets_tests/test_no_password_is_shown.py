"""What a DSN or the snapshots' URL is shown as: never with its password."""

import uuid

import dagster as dg
import pytest

from episodes_assets.databases.connections import connect, describe
from episodes_assets.errors import BadSetting, SnapshotMissing, WrongEnvironment
from episodes_assets.stores.snapshots import SnapshotStore
from episodes_assets_tests.commands.invoke import output
from episodes_assets_tests.system import System, day, failure


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://user:p@ss:word@127.0.0.1/db",
        "postgresql://user:pa@ss@127.0.0.1/db",
        "postgresql://user:p@:word@127.0.0.1/db",
        "postgresql://user:pass/word@127.0.0.1/db",
    ],
)
def test_a_password_that_is_not_percent_encoded(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In production nobody has looked at the DSN's hosts before."""
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "production")
    with pytest.raises(BadSetting, match="percent-encode the password") as refused, connect(dsn):
        pass
    assert "ss" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:p@a.example,b.example:5433/db", "u@a.example,b.example:,5433/db"),
        ("postgresql://u:p@[2001:db8::1]:5432/db", "u@2001:db8::1:5432/db"),
        ("host=/run/postgresql user=u password=p dbname=db", "u@/run/postgresql/db"),
        ("service=mine", "@localhost/"),
    ],
)
def test_hosts_of_every_kind_are_described(dsn: str, shown: str) -> None:
    assert describe(dsn) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sftp://me:secret@host:22/x", "sftp://host:22/x"),
        ("sftp://me:se@cret@host/x", "sftp://host/x"),
        ("simplecache::sftp://me:secret@host/x@y", "simplecache::sftp://host/x@y"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("/a/folder@home", "/a/folder@home"),
    ],
)
def test_a_snapshots_url_without_its_user(url: str, shown: str) -> None:
    assert SnapshotStore(url).shown == shown


def test_snapshots_below_a_url_with_a_password(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = uuid.uuid4()
    monkeypatch.setenv("EPISODES_SNAPSHOTS_URL", f"memory://me:secret@{folder}/x")
    for number in (1, 2, 3):
        system.insert_drop(day(number), [(1, 0, "2018-02-01", "2018-02-01")])
    taken = system.materialize(day(1), select=["input_episodes"])
    assert taken.success, failure(taken)
    event = taken.get_asset_materialization_events()[0]
    assert event.asset_key == dg.AssetKey("input_episodes")
    assert event.materialization.metadata["snapshots"].value == f"memory://{folder}/x"
    with pytest.raises(SnapshotMissing, match=f"below memory://{folder}/x"):
        system.snapshots.require(day(2))
    tracked = system.materialize(day(1), select=["tracked_episodes"])
    assert tracked.success, failure(tracked)
    files, root = system.snapshots._place
    files.rm(f"{root}/day={day(1)}", recursive=True)
    system.query("input", "DELETE FROM episodes WHERE batch_date = %s", [day(1)])
    gone = failure(system.materialize(day(1), select=["input_episodes"]))
    assert f"restore the folder day={day(1)} with its manifest.json below memory://{folder}/x" in gone
    with pytest.raises(WrongEnvironment, match=f"below memory://{folder}/x"):
        system.snapshots.restamp("staging", "production")
    said, _ = output("db", "stamp", "staging", "--from", "development", "--snapshots")
    assert said.replace("\n", " ").startswith(f"snapshots: stamp of memory://{folder}/x changed from")
