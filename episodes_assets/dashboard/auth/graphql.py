"""What a GraphQL request asks for, read exactly as Dagster's endpoint will read it; and its arguments.

`dagster_webserver.graphql` decides what it executes from the method, the raw Content-Type header, the body
and the query string. The same decisions are made here, with the same parsers; whatever could be read in two
ways is refused. Arguments are coerced by graphql-core against Dagster's own schema, as Dagster does it:
literals and variables alike, in the schema's order whatever the sender's. What the audit log keeps of them
is `audit`'s; requests over WebSockets are `graphql_socket`'s.
"""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import yaml
from dagster_graphql.schema import create_schema
from dagster_shared.yaml_utils import load_run_config_yaml
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableDefinitionNode,
    parse,
)
from graphql.execution.values import get_argument_values, get_variable_values
from starlette.datastructures import Headers, QueryParams

# The largest of the UI has about two thousand.
MOST_TOKENS = 10_000
LONGEST_QUERY = 200_000
MOST_OPERATIONS = 50
MOST_FRAGMENTS = 200
# Parsing more would block the event loop for too long, so it is done in a thread.
LARGE_BYTES = 5_000
# A syntax tree takes a hundred times the memory of its text: all that are kept, 150 MB at most.
LONGEST_KEPT = 20_000
_KEPT_DOCUMENTS = 64


class Unreadable(ValueError):
    """A request that Dagster would refuse, or that could be read in two ways; says why."""


@dataclass(frozen=True)
class Operation:
    """One operation of a document.

    Attributes:
        kind: Query, mutation or subscription.
        name: Its name, if it has one.
        calls: Its top-level fields, fragments resolved.
        variable_definitions: The variables that it declares.
    """

    kind: OperationType
    name: str | None
    calls: tuple[FieldNode, ...]
    variable_definitions: tuple[VariableDefinitionNode, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of its top-level fields, aliases resolved, each once."""
        return tuple(dict.fromkeys(call.name.value for call in self.calls))


@dataclass(frozen=True)
class GraphQLRequest:
    """A readable request.

    Attributes:
        operations: All operations of its document, at least one.
        operation_name: Which of them is to be executed.
        variables: As given.
    """

    operations: tuple[Operation, ...]
    operation_name: str | None
    variables: Mapping[str, Any]

    @property
    def has_mutation(self) -> bool:
        """Whether any operation changes something, also one that is not picked."""
        return any(operation.kind is OperationType.MUTATION for operation in self.operations)

    @property
    def picked(self) -> Operation | None:
        """The operation that is executed; None when Dagster will execute none."""
        if self.operation_name is None:
            return self.operations[0] if len(self.operations) == 1 else None
        named = [each for each in self.operations if each.name == self.operation_name]
        return named[-1] if named else None


def read_http(method: str, headers: Headers, query: QueryParams, body: bytes) -> GraphQLRequest | None:
    """What an HTTP request asks for.

    Returns:
        None if it has no GraphQL in it: then Dagster shows its query page, or refuses.

    Raises:
        Unreadable: If it is not GraphQL as Dagster would read it, or could be read in two ways.
    """
    if method != "POST":
        return _from_query_string(query)
    types = headers.getlist("content-type")
    if len(types) > 1:
        raise Unreadable("more than one Content-Type")
    content_type = types[0] if types else ""
    # A case-sensitive search in the whole header, parameters included, as Dagster's.
    if "application/json" in content_type:
        _refuse_query_string(query)
        return _from_mapping(json_object(body), "operationName")
    if "application/graphql" in content_type:
        _refuse_query_string(query)
        try:
            return _graphql_request(body.decode(), None, None)
        except UnicodeDecodeError as error:
            raise Unreadable("the body is not UTF-8") from error
    found = _from_query_string(query)
    if found is None:
        raise Unreadable("no GraphQL query in it; send it as application/json")
    return found


def read_socket_payload(payload: object, longest: int = LONGEST_QUERY) -> GraphQLRequest:
    """What the `start` message of a WebSocket asks for.

    Args:
        payload: Of the message.
        longest: How many characters its document may have.

    Raises:
        Unreadable: If it is not GraphQL, or too long.
    """
    if not isinstance(payload, dict):
        raise Unreadable("no payload in the message")
    if isinstance(document := payload.get("query"), str) and len(document) > longest:
        raise Unreadable(f"a document of more than {longest:,} characters")
    # Dagster reads the name of the operation from another key here than in HTTP.
    return _from_mapping(payload, "operation_name")


def json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object in which no key is given twice.

    Raises:
        Unreadable: If it is anything else.
    """
    try:
        found = json.loads(text, object_pairs_hook=_no_key_twice)
    except Unreadable:
        raise
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, too deep, a number too long
        raise Unreadable("it is not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("it is not a JSON object")
    return found


def _from_query_string(query: QueryParams) -> GraphQLRequest | None:
    for key in ("query", "variables", "operationName"):
        if len(query.getlist(key)) > 1:
            raise Unreadable(f"more than one {key} in the address")
    if "query" not in query:
        return None
    return _from_mapping(dict(query), "operationName")


def _refuse_query_string(query: QueryParams) -> None:
    if "query" in query:
        raise Unreadable("a query in the address and another in the body")


def _from_mapping(data: Mapping[str, Any], name_key: str) -> GraphQLRequest:
    return _graphql_request(data.get("query"), data.get("variables"), data.get(name_key))


def _graphql_request(query: object, variables: object, operation_name: object) -> GraphQLRequest:
    if not isinstance(query, str):
        raise Unreadable("no GraphQL query in it")
    if isinstance(variables, str):
        variables = json_object(variables) if variables.strip() != "null" else None
    if not isinstance(variables, dict | None):
        raise Unreadable("the variables are not an object")
    if not isinstance(operation_name, str | None):
        raise Unreadable("the name of the operation is not a text")
    return GraphQLRequest(_operations(query), operation_name, variables or {})


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a key is given twice")
    return found


def _operations(text: str) -> tuple[Operation, ...]:
    return kept_operations(text) if len(text) <= LONGEST_KEPT else _parse_operations(text)


def _parse_operations(text: str) -> tuple[Operation, ...]:
    try:
        document = parse(
            text,
            no_location=True,
            max_lexical_tokens=MOST_TOKENS,
            max_comments=MOST_TOKENS,
            max_source_length=LONGEST_QUERY,
        )
        found = tuple(_read_operations(document))
    except GraphQLError as error:
        raise Unreadable(f"the GraphQL cannot be parsed ({error.message})") from error
    except RecursionError as error:
        raise Unreadable("the GraphQL is nested too deeply") from error
    if not found:
        raise Unreadable("no operation in it")
    names = [operation.name for operation in found]
    if len(set(names)) != len(names):
        raise Unreadable("two operations of one name")
    return found


# The UI sends the same few documents again and again.
kept_operations = lru_cache(maxsize=_KEPT_DOCUMENTS)(_parse_operations)


def _read_operations(document: DocumentNode) -> Iterator[Operation]:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    fragments = {
        node.name.value: node.selection_set
        for node in document.definitions
        if isinstance(node, FragmentDefinitionNode)
    }
    if len(operations) > MOST_OPERATIONS or len(fragments) > MOST_FRAGMENTS:
        raise Unreadable("too many operations or fragments")
    # A fragment is walked through once for each operation that uses it.
    steps_left = MOST_TOKENS
    for node in operations:
        collector = _FieldCollector(fragments, steps_left)
        calls = tuple(collector.collect(node.selection_set))
        steps_left = collector.steps_left
        name = node.name.value if node.name else None
        yield Operation(node.operation, name, calls, tuple(node.variable_definitions))


class _FieldCollector:
    """Collects the top-level fields of one operation, without recursion: chains of fragments can be long."""

    def __init__(self, fragments: Mapping[str, SelectionSetNode], steps: int) -> None:
        self._fragments = fragments
        self._seen: set[str] = set()
        self.steps_left = steps

    def collect(self, selections: SelectionSetNode) -> Iterator[FieldNode]:
        """The fields in their order, each fragment once.

        Raises:
            Unreadable: If that takes more steps than are left.
        """
        rest = [iter(selections.selections)]
        while rest:
            node = next(rest[-1], None)
            if node is None:
                rest.pop()
                continue
            self.steps_left -= 1
            if self.steps_left < 0:
                raise Unreadable("fragments are spread too often")
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, InlineFragmentNode):
                rest.append(iter(node.selection_set.selections))
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in self._seen:
                self._seen.add(node.name.value)
                if (spread := self._fragments.get(node.name.value)) is not None:
                    rest.append(iter(spread.selections))


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


def read_calls(query: GraphQLRequest) -> list[Call]:
    """The calls of the picked operation that change something, or check run configuration.

    Raises:
        Unreadable: If Dagster would refuse the variables or arguments of such a call.
    """
    picked = query.picked
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
    variables = get_variable_values(schema, picked.variable_definitions, dict(query.variables))
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
    """The ids of the runs that calls re-execute."""
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
    """Each key with its value, at any depth; by a YAML alias a value may be repeated, or contain itself."""
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
