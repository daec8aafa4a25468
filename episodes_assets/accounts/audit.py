"""The audit log: who did what, when, from where. Only an administrator of the database can change it.

Which requests are recorded, and what of them, is decided in `dashboard/auth/`.
"""

import datetime as dt
import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from episodes_assets.accounts.identity import AuthMethod
from episodes_assets.failures import storable
from episodes_assets.postgres.connect import Connection

_LOG = logging.getLogger(__name__)
_LONGEST_TEXT = 200
LONGEST_DETAIL = 16_384
_DEEPEST = 20


@dataclass(frozen=True)
class Event:
    """Something that was done or tried.

    Attributes:
        at: When, by the database's clock.
        who: The name of the account or command; as `unproven` gives it if it was not proven.
        method: How the identity was proven; None for commands and where it was not.
        what: What was done or tried.
        detail: Whatever helps to understand it.
        address: The client's address, or the host of a command.
        outcome: What came of it.
    """

    at: dt.datetime
    who: str
    method: AuthMethod | None
    what: str
    detail: dict[str, object]
    address: str
    outcome: str


def unproven(name: str) -> str:
    """The `who` of an event whose claimed name is not proven; empty if none is claimed.

    It cannot be the name of a user, a token or a command.
    """
    return f"unproven:{name}" if name else ""


def record(
    connection: Connection,
    *,
    who: str,
    method: AuthMethod | None,
    what: str,
    detail: Mapping[str, object],
    address: str,
    outcome: str,
) -> None:
    """Add an event, and write it to this process's log as one line of JSON.

    A text of more than 200 characters is `shortened`, and about 16 kB of the detail are kept, so that few
    requests cannot fill a log from which nothing can be deleted. `fits` says whether a detail is kept whole.

    Args:
        connection: To the accounts.
        who: The name of the account or command; as `unproven` gives it if it was not proven.
        method: How the identity was proven; None for commands and where it was not.
        what: What was done or tried.
        detail: Whatever helps to understand it; values without a JSON type are written as text.
        address: The client's address, or the host of a command.
        outcome: What came of it.
    """
    event = {
        "who": _short(who),
        "way": None if method is None else method.value,
        "what": _short(what),
        "detail": _fitting(detail),
        "address": _short(address),
        "outcome": _short(outcome),
    }
    connection.execute(
        "INSERT INTO dashboard.audit_log (who, way, what, detail, address, outcome)"
        " VALUES (%(who)s, %(way)s, %(what)s, %(detail)s, %(address)s, %(outcome)s)",
        {**event, "detail": Jsonb(event["detail"])},
    )
    _LOG.info("audit %s", json.dumps(event))


def shortened(text: str, longest: int, *, kept: int | None = None) -> str:
    """A text, or, if it is too long, its beginning, its length and its SHA-256, which identifies it.

    Args:
        text: Any.
        longest: Up to how many characters a text is returned unchanged.
        kept: How many characters of a longer one are kept; by default `longest`.
    """
    if len(text) <= longest:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[: longest if kept is None else kept]}… ({len(text):,} characters, SHA-256 {digest})"


def fits(detail: Mapping[str, object]) -> bool:
    """Whether `record` keeps a detail whole."""
    return _fitting(detail) == {key: _as_json(value) for key, value in detail.items()}


_BEGINNING = dt.datetime.min.replace(tzinfo=dt.UTC)
# Each order matches one index only: all events by `at AT TIME ZONE 'UTC'`, one name's by `at`. If `at`
# matched both, an old planner would scan everybody's events to find those of one name.
_NEWEST = """
    SELECT at, who, way, what, detail, address, outcome FROM dashboard.audit_log
    WHERE at AT TIME ZONE 'UTC' >= %(since)s AT TIME ZONE 'UTC'
    ORDER BY at AT TIME ZONE 'UTC' DESC, event_id DESC LIMIT %(limit)s
"""
_NEWEST_OF_SOMEBODY = """
    SELECT at, who, way, what, detail, address, outcome
    FROM unnest(%(names)s::text[]) AS name CROSS JOIN LATERAL (
        SELECT * FROM dashboard.audit_log WHERE who = name AND at >= %(since)s
        ORDER BY at DESC, event_id DESC LIMIT %(limit)s
    ) AS events
    ORDER BY at DESC, event_id DESC LIMIT %(limit)s
"""


def read(
    connection: Connection, limit: int = 100, since: dt.datetime | None = None, who: str | None = None
) -> list[Event]:
    """The newest events, the newest first.

    Args:
        connection: To the accounts.
        limit: How many at most.
        since: Only events from then on.
        who: Only events of this name, proven or not.
    """
    found = connection.execute(
        _NEWEST if who is None else _NEWEST_OF_SOMEBODY,
        {"since": since or _BEGINNING, "names": [who, unproven(who or "")], "limit": limit},
    )
    return [
        Event(at, name, None if way is None else AuthMethod(way), what, detail, address, outcome)
        for at, name, way, what, detail, address, outcome in found
    ]


def _fitting(detail: Mapping[str, object]) -> dict[str, object]:
    """The entries that fit, in their order; the first one that does not is cut, as text."""
    kept: dict[str, object] = {}
    room = LONGEST_DETAIL
    for key, value in detail.items():
        name, given = _short(key), _as_json(value)
        text = json.dumps(given)
        room -= len(json.dumps(name)) + len(text) + len(": , ")
        if room < 0:
            kept[name] = shortened(text, max(0, len(text) + room))
            if (left := len(detail) - len(kept)) > 0:
                kept["…"] = f"{left:,} more"
            break
        kept[name] = given
    return kept


def _as_json(value: object, depth: int = 1) -> object:
    if depth > _DEEPEST and isinstance(value, Mapping | list | tuple):
        return "…"
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {storable(str(key)): _as_json(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(each, depth + 1) for each in value]
    return storable(str(value))


def _short(text: str) -> str:
    return storable(shortened(text, _LONGEST_TEXT))
