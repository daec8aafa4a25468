"""What the audit log keeps of a request: before and after it is executed, or when it is refused.

A change is described whole, with the runs that it names, before it is executed; one that is too large to be
recorded is refused, so none escapes the log by its size. Of a refused request its names are kept, cut, and
the SHA-256 of its body. Which requests are recorded is `gate`; how large a record may be,
`accounts/audit.py`.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import dagster as dg
from anyio import to_thread
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import DBAPIError
from starlette.requests import HTTPConnection

from episodes_assets.accounts.audit import fits, shortened
from episodes_assets.dashboard.auth import graphql, refusals
from episodes_assets.dashboard.auth.refusals import Refusal
from episodes_assets.days import ONE_DAY
from episodes_assets.defs.launches import LAUNCHED_BY

# Bytes of a GraphQL response that are kept to read its types: a success has some hundred, an error more.
LONGEST_ANSWER = 100_000
_LONGEST_TEXT = 500
_MOST_FIELDS = 50
_LONGEST_RECORDED_CONFIG = 1_000
# Of what a refused request says of itself, so that its event has about 1 kB.
_LONGEST_REFUSED_PATH = 200
_LONGEST_REFUSED_NAME = 40
_MOST_REFUSED_FIELDS = 10
_TAGS_SHOWN = (
    "dagster/partition",
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
    LAUNCHED_BY,
)
# Recorded after all other arguments: readers need the action and its target first.
_LAST = ("executionMetadata", "tags", "extraTags", "title", "description")


def describe_address(connection: HTTPConnection) -> dict[str, object]:
    """A request's method and path."""
    return {
        "method": connection.scope.get("method", "WEBSOCKET"),
        "path": shortened(connection.scope["path"], _LONGEST_TEXT),
    }


def describe_briefly(query: graphql.GraphQLRequest | None, body: bytes) -> dict[str, object]:
    """What identifies a request: its GraphQL operation and fields by name, cut, and its body's SHA-256."""
    described: dict[str, object] = {}
    if query is not None:
        name = query.picked.name if query.picked else query.operation_name
        fields = dict.fromkeys(field for operation in query.operations for field in operation.fields)
        described["operation"] = None if name is None else shortened(name, _LONGEST_TEXT)
        described["fields"] = [shortened(field, _LONGEST_TEXT) for field in list(fields)[:_MOST_FIELDS]]
    return {**described, "sha256": hashlib.sha256(body).hexdigest()}


def describe_refused(
    connection: HTTPConnection, query: graphql.GraphQLRequest | None, body: bytes | None
) -> dict[str, object]:
    """What is recorded of a refused request: the beginnings of its names, which its body's SHA-256 completes.

    Args:
        connection: The request.
        query: The GraphQL in it, if there is any and it was read.
        body: Of the request; None if it was not read.
    """
    described: dict[str, object] = {
        "method": str(connection.scope.get("method", "WEBSOCKET"))[:_LONGEST_REFUSED_NAME],
        "path": connection.scope["path"][:_LONGEST_REFUSED_PATH],
    }
    if body is None:
        return described
    brief = describe_briefly(query, body)
    if isinstance(name := brief.get("operation"), str):
        brief["operation"] = name[:_LONGEST_REFUSED_NAME]
    if isinstance(fields := brief.get("fields"), list):
        brief["fields"] = [field[:_LONGEST_REFUSED_NAME] for field in fields[:_MOST_REFUSED_FIELDS]]
    return described | brief


async def describe_whole(
    connection: HTTPConnection,
    query: graphql.GraphQLRequest | None,
    calls: Sequence[graphql.Call],
    body: bytes,
    instance: dg.DagsterInstance,
    event: str,
) -> dict[str, object] | Refusal:
    """What is recorded of a request before it is executed: all that it asks for, with the runs that it names.

    Args:
        connection: The request.
        query: The GraphQL in it, if there is any.
        calls: What of that is executed.
        body: Of the request.
        instance: Dagster's.
        event: The id that its events share.

    Returns:
        A refusal if it is too much for the audit log, if the configuration of a run that is to be executed
        again names an environment variable, or if Dagster's database does not answer.
    """
    whole = describe_request(connection, body) if query is None else describe_calls(calls)
    detail = {"request": event, **whole, **describe_briefly(query, body)}
    if not fits(detail):
        return refusals.TOO_MUCH
    if ids := graphql.named_runs(calls):
        try:
            known = await to_thread.run_sync(KnownRuns, instance, ids)
        except (DBAPIError, DagsterPostgresException):
            return refusals.AWAY
        if known.name_environment(graphql.parent_runs(calls)):
            return refusals.ENVIRONMENT
        detail |= known.describe()
    return detail if fits(detail) else refusals.TOO_MUCH


def describe_calls(calls: Sequence[graphql.Call]) -> dict[str, object]:
    """Each call of a GraphQL request with all its arguments."""
    return {"calls": [{"field": call.field, "arguments": _readable(call.arguments)} for call in calls]}


def describe_request(connection: HTTPConnection, body: bytes) -> dict[str, object]:
    """A request other than GraphQL, whole: its address with the query string, and its body."""
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
    """The runs and backfills that a request names, as they are recorded before it is executed.

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
                    graphql.RUN_CONFIG: _recorded(run.run_config),
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
                    graphql.RUN_CONFIG: _recorded(each.run_config),
                    "tags": _shown_tags(each.tags or {}),
                }
                for each in backfills
            ),
        ]

    def name_environment(self, ids: Sequence[str]) -> bool:
        """Whether the configuration of any of these runs names an environment variable."""
        return any(graphql.names_environment(self._configs.get(each)) for each in ids)

    def describe(self) -> dict[str, object]:
        """What each is: job, assets, configuration, partitions, who launched it."""
        return {"runs": self._described} if self._described else {}


def describe_answer(answer: bytes) -> dict[str, object]:
    """The types in a GraphQL response, which say what came of it: Dagster's HTTP status does not."""
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
        return {
            key: _as_text(value[key]) if key == graphql.RUN_CONFIG else _readable(value[key]) for key in keys
        }
    if isinstance(value, list):
        return _with_ranges([_readable(each) for each in value])
    return value.value if isinstance(value, Enum) else value


def _recorded(run_config: object) -> str:
    """The configuration of a recorded run; of a long one its digest, as its launch has recorded it whole."""
    return shortened(json.dumps(run_config), _LONGEST_RECORDED_CONFIG, kept=0)


def _as_text(run_config: Any) -> object:  # noqa: ANN401
    return run_config if isinstance(run_config, str | None) else json.dumps(run_config)


def _with_ranges(values: list[object]) -> list[object]:
    """A list in which three or more consecutive days are one entry: backfills list every single day."""
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
