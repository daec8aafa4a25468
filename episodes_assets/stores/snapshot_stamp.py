"""The stamp on a snapshot store: the environment it belongs to, in `environment.json` at its root.

As with the databases, a copy of a store carries its stamp along, and a process of another environment
refuses to write there. Reading needs none: a development process may replay production's snapshots.
"""

import datetime as dt
import json
from typing import Any

from episodes_assets.errors import SnapshotDamaged, WrongEnvironment

STAMP = "environment.json"


def verify(filesystem: Any, root: str, environment: str, url: str) -> None:  # noqa: ANN401
    """Refuse a store of another environment; one without a stamp belongs to nobody yet.

    Args:
        filesystem: The store's, from fsspec.
        root: Its folder there.
        environment: This process's.
        url: The store, without a password, for the message.

    Raises:
        WrongEnvironment: If its stamp differs.
    """
    stamp = read(filesystem, root)
    if stamp is not None and stamp != environment:
        raise WrongEnvironment(
            f"the snapshots below {url} belong to {stamp!r}, this process to {environment!r}",
            "set EPISODES_SNAPSHOTS_URL to a store of your own, or EPISODES_ENVIRONMENT if you mean this one",
        )


def read(filesystem: Any, root: str) -> str | None:  # noqa: ANN401
    """The environment a store belongs to; None when nothing was ever written to it.

    Raises:
        SnapshotDamaged: If its stamp cannot be read.
    """
    try:
        return str(json.loads(filesystem.cat_file(f"{root}/{STAMP}"))["environment"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise SnapshotDamaged(
            f"{root}/{STAMP} does not say which environment the snapshots belong to",
            'restore it from a backup, or write {"environment": "NAME"} into it',
        ) from error


def put(filesystem: Any, root: str, environment: str, folder: str) -> None:  # noqa: ANN401
    """Stamp a store that has no stamp, by a rename out of a folder of one's own.

    Args:
        filesystem: The store's, from fsspec.
        root: Its folder there.
        environment: This process's.
        folder: Where nobody else writes, in the same store.
    """
    if not filesystem.exists(f"{root}/{STAMP}"):
        write(filesystem, root, environment, folder)


def write(filesystem: Any, root: str, environment: str, folder: str) -> None:  # noqa: ANN401
    """Stamp a store, whatever its stamp was; arguments as in `put`."""
    stamp = {"environment": environment, "stamped_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
    filesystem.pipe_file(f"{folder}/{STAMP}", json.dumps(stamp, indent=2).encode())
    filesystem.mv(f"{folder}/{STAMP}", f"{root}/{STAMP}")
