"""Where a lake is: a folder of this machine, or an object store's bucket."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from episodes_assets import failures
from episodes_assets.databases import doors
from episodes_assets.errors import BadSetting


@dataclass(frozen=True)
class Place:
    """Where a table is.

    Attributes:
        uri: As Delta's library wants to have it.
        filesystem: Its files by their paths from its folder.
        folder: Its folder on this machine; None in an object store.
    """

    uri: str
    filesystem: pafs.FileSystem
    folder: Path | None = None


def find_place(lake_url: str, name: str) -> Place:
    """Where a table of a lake is.

    Raises:
        BadSetting: If that is no place for a lake. What is no URL of an object store, Delta's library may
            take for a table that was never written to.
    """

    def refusal(reason: str) -> BadSetting:
        return BadSetting(
            f"{doors.LAKE} = {doors.without_user(lake_url)!r} is no place for a lake ({reason})",
            "name a folder, or a URL such as s3://bucket/prefix",
        )

    try:
        parts = urlsplit(lake_url)
    except ValueError as error:
        raise refusal(str(error)) from error
    if parts.scheme and (parts.query or parts.fragment):
        raise refusal("it has a query or a fragment")
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise refusal("it is on another host")
    if parts.scheme in ("", "file"):
        folder = Path(parts.path if parts.scheme else lake_url).absolute() / name
        return Place(str(folder), pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem()), folder)
    uri = f"{lake_url.rstrip('/')}/{name}"
    try:
        store, path = pafs.FileSystem.from_uri(uri)
    except ValueError as error:
        raise refusal(failures.reason(error)) from error
    return Place(uri, pafs.SubTreeFileSystem(path, store))
