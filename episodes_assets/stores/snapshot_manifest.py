"""What a snapshot's manifest says, and how its files are called."""

from dataclasses import dataclass

EPISODES = "episodes.parquet"
VIEWED = "viewed.parquet"
QUARANTINE = "quarantine.parquet"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot's manifest says.

    Attributes:
        day: The day, `YYYY-MM-DD`.
        snapshot_id: Follows from the content: equal input, equal id.
        drop_rows: Rows read from the drop, counted before validation.
        accepted_rows: Rows that passed validation.
        quarantined_rows: Rows that did not.
        viewed_episodes: Distinct episodes viewed on the day.
        reasons: Quarantined rows by broken rule; a row may break several.
        files: The SHA-256 of each file.
        taken_at: When it was taken, ISO 8601, UTC; when equal input was taken again, the last time.
        reason: Why it was taken then; empty in the ordinary course of things.
    """

    day: str
    snapshot_id: str
    drop_rows: int
    accepted_rows: int
    quarantined_rows: int
    viewed_episodes: int
    reasons: dict[str, int]
    files: dict[str, str]
    taken_at: str
    reason: str = ""
