"""What a GraphQL request asks for, read exactly as Dagster's endpoint will read it.

`dagster_webserver.graphql` decides what it executes from the method, the raw Content-Type header, the
body and the query string. The same decisions are made here, with the same parsers; whatever could be read
in two ways is refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableDefinitionNode,
    parse,
)
from starlette.datastructures import Headers, QueryParams

# The largest of the UI has about two thousand.
MOST_TOKENS = 10_000
LONGEST_QUERY = 200_000
MOST_OPERATIONS = 50
MOST_FRAGMENTS = 200
# Reading more keeps the event loop for too long, so it happens beside it.
LARGE_BYTES = 5_000
_KEPT_DOCUMENTS = 256


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
class Asked:
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


def read_http(method: str, headers: Headers, query: QueryParams, body: bytes) -> Asked | None:
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
    # A plain search in the header, cases and parameters as they are: so does Dagster.
    if "application/json" in content_type:
        _refuse_query_string(query)
        return _from_mapping(json_object(body), "operationName")
    if "application/graphql" in content_type:
        _refuse_query_string(query)
        try:
            return _asked(body.decode(), None, None)
        except UnicodeDecodeError as error:
            raise Unreadable("the body is not UTF-8") from error
    asked = _from_query_string(query)
    if asked is None:
        raise Unreadable("no GraphQL query in it; send it as application/json")
    return asked


def read_socket_payload(payload: object) -> Asked:
    """What the `start` message of a WebSocket asks for.

    Raises:
        Unreadable: If it is not GraphQL.
    """
    if not isinstance(payload, dict):
        raise Unreadable("no payload in the message")
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


def _from_query_string(query: QueryParams) -> Asked | None:
    for key in ("query", "variables", "operationName"):
        if len(query.getlist(key)) > 1:
            raise Unreadable(f"more than one {key} in the address")
    if "query" not in query:
        return None
    return _from_mapping(dict(query), "operationName")


def _refuse_query_string(query: QueryParams) -> None:
    if "query" in query:
        raise Unreadable("a query in the address and another in the body")


def _from_mapping(data: Mapping[str, Any], name_key: str) -> Asked:
    return _asked(data.get("query"), data.get("variables"), data.get(name_key))


def _asked(query: object, variables: object, operation_name: object) -> Asked:
    if not isinstance(query, str):
        raise Unreadable("no GraphQL query in it")
    if isinstance(variables, str):
        variables = json_object(variables) if variables.strip() != "null" else None
    if not isinstance(variables, dict | None):
        raise Unreadable("the variables are not an object")
    if not isinstance(operation_name, str | None):
        raise Unreadable("the name of the operation is not a text")
    return Asked(_operations(query), operation_name, variables or {})


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a key is given twice")
    return found


# The UI asks the same few questions again and again.
@lru_cache(maxsize=_KEPT_DOCUMENTS)
def _operations(text: str) -> tuple[Operation, ...]:
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


def _read_operations(document: DocumentNode) -> Iterator[Operation]:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    fragments = {
        node.name.value: node.selection_set
        for node in document.definitions
        if isinstance(node, FragmentDefinitionNode)
    }
    if len(operations) > MOST_OPERATIONS or len(fragments) > MOST_FRAGMENTS:
        raise Unreadable("too many operations or fragments")
    # Operations that share a fragment each walk through it.
    steps_left = MOST_TOKENS
    for node in operations:
        walk = _Walk(fragments, steps_left)
        calls = tuple(walk.calls(node.selection_set))
        steps_left = walk.steps_left
        name = node.name.value if node.name else None
        yield Operation(node.operation, name, calls, tuple(node.variable_definitions))


class _Walk:
    """Through the top-level fields of one operation, without recursion: chains of fragments are long."""

    def __init__(self, fragments: Mapping[str, SelectionSetNode], steps: int) -> None:
        self._fragments = fragments
        self._seen: set[str] = set()
        self.steps_left = steps

    def calls(self, selections: SelectionSetNode) -> Iterator[FieldNode]:
        """Its fields in their order, each fragment once.

        Raises:
            Unreadable: If there is more of them than there are steps.
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
