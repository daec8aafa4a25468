"""What the audit log keeps of a request: all that it asks for; a request with too much for that is refused.

How much that may be is decided in `accounts/audit.py`.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import dagster as dg
from starlette.requests import HTTPConnection

from episodes_assets.accounts.audit import shortened
from episodes_assets.dashboard.auth.graphql import RUN_CONFIG, Call, GraphQLRequest, names_environment
from episodes_assets.days import ONE_DAY
from episodes_assets.defs.launches import LAUNCHED_BY

# One answer with the types of what was done is some hundred bytes; errors with tracebacks are long.
LONGEST_ANSWER = 100_000
_LONGEST_TEXT = 500
_MOST_FIELDS = 50
_LONGEST_RECORDED_CONFIG = 1_000
_TAGS_SHOWN = (
    "dagster/partition",
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
    LAUNCHED_BY,
)
# Whoever reads an event wants what is done and to what before how it is labelled.
_LAST = ("executionMetadata", "tags", "extraTags", "title", "description")


def describe_address(connection: HTTPConnection) -> dict[str, object]:
    """Where a request goes."""
    return {
        "method": connection.scope.get("method", "WEBSOCKET"),
        "path": shortened(connection.scope["path"], _LONGEST_TEXT),
    }


def describe_body(body: bytes) -> dict[str, object]:
    """What tells one body from any other."""
    return {"sha256": hashlib.sha256(body).hexdigest()}


def describe_operation(query: GraphQLRequest | None) -> dict[str, object]:
    """Which operation of GraphQL it is, and the names of all that stand in the document, cut."""
    if query is None:
        return {}
    name = query.picked.name if query.picked else query.operation_name
    fields = dict.fromkeys(field for operation in query.operations for field in operation.fields)
    return {
        "operation": None if name is None else shortened(name, _LONGEST_TEXT),
        "fields": [shortened(field, _LONGEST_TEXT) for field in list(fields)[:_MOST_FIELDS]],
    }


def describe_calls(calls: Sequence[Call]) -> dict[str, object]:
    """What GraphQL is asked to do, whole: each call with its arguments."""
    return {"calls": [{"field": call.field, "arguments": _readable(call.arguments)} for call in calls]}


def describe_request(connection: HTTPConnection, body: bytes) -> dict[str, object]:
    """What another request asks for, whole: its address with the query string, and its body."""
    described: dict[str, object] = {
        "method": connection.scope["method"],
        "path": connection.scope["path"],
    }
    if query := connection.url.query:
        described["query"] = query
    if body:
        described["body"] = body.decode("utf-8", "replace")
    return described


class KnownRuns:
    """The runs and backfills that a request is about, as Dagster has them before it is executed.

    Args:
        instance: Dagster's.
        ids: Of runs and backfills; what is neither is left out.
    """

    def __init__(self, instance: dg.DagsterInstance, ids: Sequence[str]) -> None:
        runs = instance.get_runs(dg.RunsFilter(run_ids=list(ids))) if ids else []
        missing = set(ids) - {run.run_id for run in runs}
        backfills = [found for each in ids if each in missing and (found := instance.get_backfill(each))]
        self._configs: dict[str, object] = {run.run_id: run.run_config for run in runs}
        self._configs |= {each.backfill_id: each.run_config for each in backfills}
        self._described = [
            *(
                {
                    "run": run.run_id,
                    "job": run.job_name,
                    "assets": sorted(key.to_user_string() for key in run.asset_selection or ()),
                    RUN_CONFIG: _recorded(run.run_config),
                    "tags": _shown_tags(run.tags),
                }
                for run in runs
            ),
            *(
                {
                    "backfill": each.backfill_id,
                    "job": each.job_name,
                    "assets": sorted(key.to_user_string() for key in each.asset_selection or ()),
                    "partitionNames": _readable(list(each.partition_names or ())),
                    RUN_CONFIG: _recorded(each.run_config),
                    "tags": _shown_tags(each.tags or {}),
                }
                for each in backfills
            ),
        ]

    def name_environment(self, ids: Sequence[str]) -> bool:
        """Whether the configuration of any of these names an environment variable."""
        return any(names_environment(self._configs.get(each)) for each in ids)

    def describe(self) -> dict[str, object]:
        """What each is: job, assets, configuration, partitions, who launched it."""
        return {"runs": self._described} if self._described else {}


def describe_answer(answer: bytes) -> dict[str, object]:
    """The types that GraphQL answered with: Dagster refuses with the same status that it agrees with."""
    try:
        data = json.loads(answer)["data"]
        return {"answer": {key: str(each["__typename"]) for key, each in data.items()}}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return {}


def _shown_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: tags[key] for key in _TAGS_SHOWN if key in tags}


def _readable(value: object) -> object:
    """A coerced argument as JSON; run configuration stays one text, exactly as it was sent."""
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: key in _LAST)
        return {key: _as_text(value[key]) if key == RUN_CONFIG else _readable(value[key]) for key in keys}
    if isinstance(value, list):
        return _with_ranges([_readable(each) for each in value])
    return value.value if isinstance(value, Enum) else value


def _recorded(run_config: object) -> str:
    """The configuration that Dagster has of a run; a long one is in the event of its launch."""
    return shortened(json.dumps(run_config), _LONGEST_RECORDED_CONFIG, kept=0)


def _as_text(run_config: Any) -> object:  # noqa: ANN401
    return run_config if isinstance(run_config, str | None) else json.dumps(run_config)


def _with_ranges(values: list[object]) -> list[object]:
    """A list in which three and more days that follow each other are one entry: backfills name each day."""
    found: list[object] = []
    begin = 0
    while begin < len(values):
        end = begin
        while end + 1 < len(values) and _follows(values[end], values[end + 1]):
            end += 1
        if end - begin >= 2:
            found.append(f"{values[begin]} to {values[end]} ({end - begin + 1} days)")
        else:
            found.extend(values[begin : end + 1])
        begin = end + 1
    return found


def _follows(day: object, other: object) -> bool:
    if not isinstance(day, str) or not isinstance(other, str):
        return False
    try:
        after = dt.date.fromisoformat(day) + ONE_DAY
    except (ValueError, OverflowError):
        return False
    return after.isoformat() == other and (after - ONE_DAY).isoformat() == day
