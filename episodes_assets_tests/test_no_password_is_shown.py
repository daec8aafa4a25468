"""What a DSN or a URL is shown as: never with its password."""

import uuid

import pytest

from episodes_assets.errors import BadSetting, NotBroughtIn
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.older_snapshots import OlderSnapshots
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres.connect import connect, describe
from episodes_assets_tests.support.system import System


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
def test_a_url_without_its_user(url: str, shown: str) -> None:
    assert OlderSnapshots(url).shown == shown
    assert Drops(url).shown == shown
    assert Viewings(url).shown == f"{shown}/viewings"


def test_snapshots_below_a_url_with_a_password(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = uuid.uuid4()
    monkeypatch.setenv("EPISODES_SNAPSHOTS_URL", f"memory://me:secret@{folder}/x")
    older = OlderSnapshots(system.settings.snapshots)
    files, root = older._place
    files.pipe_file(f"{root}/day=2018-03-01/manifest.json", b"{}")
    with pytest.raises(NotBroughtIn, match=f"below memory://{folder}/x are not in the lake"):
        older.require_brought_in(system.drops)
    files.rm(f"{root}/day=2018-03-01", recursive=True)
    older.require_brought_in(system.drops)
