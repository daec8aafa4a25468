"""What a PgQueuer message says: work a chunk of a plan's jobs."""

import json
from dataclasses import asdict, dataclass

ENTRYPOINT = "episode_jobs"


@dataclass(frozen=True)
class ChunkMessage:
    """Names a chunk of jobs in the ledger."""

    plan_id: int
    chunk: int

    def encode(self) -> bytes:
        """As a message's payload."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "ChunkMessage":
        """From a message's payload."""
        return cls(**json.loads(payload))
