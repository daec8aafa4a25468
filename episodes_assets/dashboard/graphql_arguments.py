"""The arguments of a readable GraphQL request as Dagster's resolvers will get them, and what stands in them.

Coerced by graphql-core against Dagster's own schema, as Dagster does it: literals and variables alike, in the
schema's order whatever the sender's. What the audit log keeps of them is `audit_detail.py`'s.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from dagster_graphql.schema import create_schema
from dagster_shared.yaml_utils import load_run_config_yaml
from graphql import FieldNode, GraphQLError, GraphQLField, GraphQLSchema, OperationType
from graphql.execution.values import get_argument_values, get_variable_values

from episodes_assets.dashboard.graphql_reading import Asked, Unreadable

RUN_CONFIG = "runConfigData"
_PARENT = "parentRunId"
_RUN_IDS = frozenset({_PARENT, "runId", "runIds", "backfillId"})
_QUERIES_WITH_RUN_CONFIG = frozenset({"isPipelineConfigValid", "executionPlanOrError"})


@dataclass(frozen=True)
class Call:
    """A top-level field that is executed.

    Attributes:
        field: Its name in the schema.
        arguments: Coerced.
    """

    field: str
    arguments: Mapping[str, Any]


def read_calls(asked: Asked) -> list[Call]:
    """The calls of the picked operation that change something, or check run configuration.

    Raises:
        Unreadable: If Dagster would refuse the variables or arguments of such a call.
    """
    picked = asked.picked
    if picked is None or picked.kind is OperationType.SUBSCRIPTION:
        return []
    schema = _schema()
    root = schema.mutation_type if picked.kind is OperationType.MUTATION else schema.query_type
    assert root is not None  # noqa: S101  Dagster's has both
    nodes = [
        call
        for call in picked.calls
        if call.name.value in root.fields
        and (picked.kind is OperationType.MUTATION or call.name.value in _QUERIES_WITH_RUN_CONFIG)
    ]
    if not nodes:
        return []
    variables = get_variable_values(schema, picked.variable_definitions, dict(asked.variables))
    if isinstance(variables, list):
        raise Unreadable(variables[0].message)
    try:
        return [_call(root.fields[node.name.value], node, variables) for node in nodes]
    except GraphQLError as error:
        raise Unreadable(error.message) from error


def _call(definition: GraphQLField, node: FieldNode, variables: dict[str, Any]) -> Call:
    values = get_argument_values(definition, node, variables)
    # Resolvers in Python get some arguments by other names.
    named = {name: argument.out_name or name for name, argument in definition.args.items()}
    return Call(node.name.value, {name: values[out] for name, out in named.items() if out in values})


def named_runs(calls: Sequence[Call]) -> list[str]:
    """The ids of runs and backfills that calls are about, each once."""
    return list(dict.fromkeys(each for call in calls for each in _ids(call, _RUN_IDS)))


def parent_runs(calls: Sequence[Call]) -> list[str]:
    """The ids of those among them that calls execute again."""
    return [each for call in calls for each in _ids(call, {_PARENT})]


def _ids(call: Call, keys: Set[str]) -> Iterator[str]:
    for key, value in _entries(call.arguments):
        if key in keys:
            ids = value if isinstance(value, list) else [value]
            yield from (each for each in ids if isinstance(each, str))


def takes_environment(calls: Sequence[Call]) -> bool:
    """Whether the run configuration of any call names an environment variable."""
    return any(
        names_environment(value)
        for call in calls
        for key, value in _entries(call.arguments)
        if key == RUN_CONFIG
    )


def names_environment(run_config: object) -> bool:
    """Whether `{env: NAME}` stands anywhere in a run configuration, which may be YAML or JSON in a text."""
    if isinstance(run_config, str):
        try:
            run_config = load_run_config_yaml(run_config)
        except (yaml.YAMLError, ValueError, RecursionError):
            return False  # Dagster refuses it as well
    return any(key == "env" for key, _ in _entries(run_config))


def _entries(value: object) -> Iterator[tuple[object, object]]:
    """Each key with its value, at any depth; YAML may have one value in many places, or within itself."""
    rest, seen = [value], set()
    while rest:
        each = rest.pop()
        if not isinstance(each, Mapping | list) or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Mapping):
            yield from each.items()
            rest.extend(each.values())
        else:
            rest.extend(each)


@cache
def _schema() -> GraphQLSchema:
    schema: GraphQLSchema = create_schema().graphql_schema
    return schema
