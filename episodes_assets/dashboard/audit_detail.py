"""What the audit log keeps of a request: enough to know what was asked for, and never more than some kB."""

import json
from collections.abc import Mapping

from graphql import FieldNode, print_ast
from starlette.requests import HTTPConnection

from episodes_assets.dashboard.graphql_reading import Asked
from episodes_assets.dashboard.site import cut

# One answer with the types of what was done is some hundred bytes; errors with tracebacks are long.
LONGEST_ANSWER = 100_000
_MOST_CHARACTERS = 2_000
_LONGEST_TEXT = 500
_LONGEST_KEY = 100
_DEEPEST = 20


def describe_address(connection: HTTPConnection) -> dict[str, object]:
    """Where a request goes."""
    return {
        "method": connection.scope.get("method", "WEBSOCKET"),
        "path": cut(connection.scope["path"], _LONGEST_TEXT),
    }


def describe_graphql(asked: Asked | None) -> dict[str, object]:
    """What GraphQL asks for: its top-level fields with the arguments that stand there, and its variables."""
    if asked is None:
        return {}
    picked = asked.picked
    name = picked.name if picked else asked.operation_name
    return {
        "operation": None if name is None else cut(name, _LONGEST_TEXT),
        "fields": shortened([call for operation in asked.operations for call in operation.calls]),
        "variables": shortened(asked.variables),
    }


def describe_request(connection: HTTPConnection, body: bytes) -> dict[str, object]:
    """What another request asks for: its address with the query string, and its body."""
    described = describe_address(connection)
    if query := connection.url.query:
        described["query"] = cut(query, _MOST_CHARACTERS)
    if body:
        try:
            described["body"] = shortened(json.loads(body))
        except (ValueError, RecursionError):
            described["body"] = cut(body.decode("utf-8", "replace"), _MOST_CHARACTERS)
    return described


def describe_answer(answer: bytes) -> dict[str, object]:
    """The types that GraphQL answered with: Dagster refuses with the same status that it agrees with."""
    try:
        data = json.loads(answer)["data"]
        return {"answer": shortened({key: each["__typename"] for key, each in data.items()})}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return {}


def shortened(value: object) -> object:
    """A value of JSON, each long text in it cut, and what is too much left out and counted."""
    return _Shortening().of(value, 0)


class _Shortening:
    def __init__(self) -> None:
        self._left = _MOST_CHARACTERS

    def of(self, value: object, depth: int) -> object:
        if isinstance(value, Mapping | list):
            if depth == _DEEPEST:
                return "…"
            return self._mapping(value, depth) if isinstance(value, Mapping) else self._list(value, depth)
        if isinstance(value, FieldNode):
            short = cut(_written(value), _MOST_CHARACTERS)
        else:
            short = cut(value, _LONGEST_TEXT)
        self._left -= len(str(short))
        return short

    def _mapping(self, value: Mapping[str, object], depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        for number, (key, each) in enumerate(value.items()):
            if self._left <= 0:
                found["…"] = f"{len(value) - number:,} more"
                break
            name = str(cut(key, _LONGEST_KEY))
            # Two long keys can begin alike, and neither may hide the other.
            name = name if name not in found else f"{name} #{number}"
            self._left -= len(name)
            found[name] = self.of(each, depth + 1)
        return found

    def _list(self, value: list[object], depth: int) -> list[object]:
        found: list[object] = []
        for number, each in enumerate(value):
            if self._left <= 0:
                found.append(f"… {len(value) - number:,} more")
                break
            self._left -= 1
            found.append(self.of(each, depth + 1))
        return found


def _written(field: FieldNode) -> str:
    """A field as it stands in the document, without what is selected of its answer."""
    return print_ast(
        FieldNode(alias=field.alias, name=field.name, arguments=field.arguments, directives=field.directives)
    )
