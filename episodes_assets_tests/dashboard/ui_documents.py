"""The GraphQL that Dagster's own UI sends over its WebSocket, out of the installed JavaScript."""

import json
import re
from pathlib import Path
from typing import Any

import dagster_webserver
from graphql import (
    FieldNode,
    GraphQLError,
    NameNode,
    OperationDefinitionNode,
    SelectionSetNode,
    Visitor,
    parse,
    print_ast,
    visit,
)

_BUILD = Path(dagster_webserver.__file__).parent / "webapp" / "build" / "_next"
_BEGINNING = re.compile(r"\b(fragment|subscription) (\w+)(?: on \w+)?\s*(?:\([^)]*\))?\s*\{")
_SPREAD = re.compile(r"\.\.\.\s*(?!on\b)(\w+)")


def subscriptions() -> dict[str, str]:
    """Each subscription by its name, with its fragments, and with `__typename` where Apollo adds it."""
    written: dict[str, dict[str, str]] = {"subscription": {}, "fragment": {}}
    for path in _BUILD.rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        if "subscription " in text or "fragment " in text:
            text = text.replace(r"\n", "\n").replace(r"\"", '"').replace(r"\'", "'")
            for found in _BEGINNING.finditer(text):
                if (definition := _definition(text, found)) is not None:
                    written[found[1]][found[2]] = definition
    return {name: _sent(text, written["fragment"]) for name, text in written["subscription"].items()}


def message(name: str, document: str) -> str:
    """The message by which it is started, as Apollo's client sends it."""
    variables = {"runId": "0" * 36, "cursor": "0" * 40, "logKey": ["0" * 36, "compute_logs", "x" * 100]}
    payload: dict[str, Any] = {"variables": variables, "extensions": {}, "operationName": name}
    return json.dumps({"id": "1", "type": "start", "payload": {**payload, "query": document}})


def _definition(text: str, found: re.Match[str]) -> str | None:
    """One definition, from its keyword to its last brace; None for what only looks like one."""
    depth, end = 0, found.end() - 1
    for end in range(found.end() - 1, min(len(text), found.start() + 20_000)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            break
    try:
        parse(text[found.start() : end + 1])
    except GraphQLError:
        return None
    return text[found.start() : end + 1]


class _Typename(Visitor):
    def enter_selection_set(self, node: SelectionSetNode, _key: object, parent: object, *_: object) -> Any:
        if isinstance(parent, OperationDefinitionNode):
            return None
        typename = FieldNode(name=NameNode(value="__typename"), arguments=(), directives=())
        return SelectionSetNode(selections=(*node.selections, typename))


def _sent(text: str, fragments: dict[str, str]) -> str:
    used: dict[str, str] = {}
    rest = [text]
    while rest:
        for name in _SPREAD.findall(rest.pop()):
            if name not in used:
                used[name] = fragments[name]
                rest.append(fragments[name])
    return print_ast(visit(parse("\n".join([text, *used.values()])), _Typename()))
