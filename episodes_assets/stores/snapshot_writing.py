"""Taking a snapshot, part by part."""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from episodes_assets.stores import drop_table
from episodes_assets.stores.hashed_parquet import HashedParquet
from episodes_assets.stores.snapshot_manifest import EPISODES, QUARANTINE, VIEWED, Snapshot
from episodes_assets.validation.drop import ValidatedDrop


class SnapshotWriter:
    """A snapshot that is being taken; `SnapshotStore.new` makes it."""

    def __init__(
        self,
        day: dt.date,
        filesystem: Any,  # noqa: ANN401
        folder: str,
        reason: str,
        adopt: Callable[[Snapshot], None],
    ) -> None:
        self._day = day
        self._reason = reason
        self._adopt = adopt
        self._files = {
            name: HashedParquet(filesystem.open(f"{folder}/{name}", "wb"), schema)
            for name, schema in (
                (EPISODES, drop_table.ACCEPTED),
                (QUARANTINE, drop_table.QUARANTINED),
                (VIEWED, pa.schema({"epid": pa.int64()})),
            )
        }
        self._reasons: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        """Rows added so far."""
        return self._files[EPISODES].rows + self._files[QUARANTINE].rows

    def add(self, validated: ValidatedDrop) -> None:
        """Add the next part of the drop, whose episodes are in no other part."""
        self._files[EPISODES].write(drop_table.to_table(validated.accepted))
        self._files[QUARANTINE].write(drop_table.to_table(validated.quarantined, drop_table.QUARANTINED))
        self._reasons.update(validated.reasons)

    def finish(self, viewed: npt.NDArray[np.int64], rows_read: int) -> Snapshot:
        """Let `SnapshotStore.find` answer with this snapshot from now on.

        Args:
            viewed: The ascending epids viewed on the day.
            rows_read: Rows that came from the drop, counted by whoever read it.
        """
        self._files[VIEWED].write(pa.table({"epid": pa.array(viewed, pa.int64())}))
        accepted, quarantined = self._files[EPISODES].rows, self._files[QUARANTINE].rows
        self.close()
        files = {name: file.digest for name, file in self._files.items()}
        snapshot = Snapshot(
            day=self._day.isoformat(),
            snapshot_id=hashlib.sha256("".join(files.values()).encode()).hexdigest()[:16],
            drop_rows=rows_read,
            accepted_rows=accepted,
            quarantined_rows=quarantined,
            viewed_episodes=len(viewed),
            reasons=dict(self._reasons.most_common()),
            files=files,
            taken_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            reason=self._reason,
        )
        self._adopt(snapshot)
        return snapshot

    def close(self) -> None:
        """Close the files; once is enough."""
        for file in self._files.values():
            file.close()
