"""The auth gate reads GraphQL as Dagster's own endpoint does, whatever is sent to both."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers, QueryParams
from starlette.testclient import TestClient

from episodes_assets.dashboard.auth.graphql import (
    LONGEST_KEPT,
    GraphQLRequest,
    Unreadable,
    kept_operations,
    read_http,
    read_socket_payload,
)
from episodes_assets_tests.dashboard.bare_dagster import BareDagster

BARE = BareDagster()

_QUERY_PARTS = [
    "asked", "change: asked", "asked # mutation { change }\n", "... on Query { asked also }", "...FQ",
    "asked @skip(if: false)",
]  # fmt: skip
_MUTATION_PARTS = [
    "change",
    "asked: change",
    "...FM",
    "... on Mutation { change }",
    "change @include(if: true)",
]
_FRAGMENTS = {
    "...FQ": "fragment FQ on Query { asked }",
    "...FM": "fragment FM on Mutation { ...FN } fragment FN on Mutation { change }",
}


@st.composite
def operations(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["query", "mutation", "subscription", ""]))
    parts = {"mutation": _MUTATION_PARTS, "subscription": ["ticks"]}.get(kind, _QUERY_PARTS)
    body = draw(st.lists(st.sampled_from(parts), min_size=1, max_size=2))
    name = draw(st.sampled_from(["", "A", "B", "mutation", "query"])) if kind else ""
    gap = draw(st.sampled_from([" ", "\n", ",", "\t#x\r\n", "\ufeff"]))
    return f"{kind}{gap if name else ' '}{name} {{ {gap.join(body)} }}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    found = draw(st.lists(operations(), min_size=0, max_size=3))
    # Dagster executes only documents that define what they spread, and nothing else.
    spread = [text for name, text in _FRAGMENTS.items() if any(name in each for each in found)]
    fragments = draw(st.sampled_from([spread, spread, spread, list(_FRAGMENTS.values()), []]))
    end = draw(st.sampled_from(["", "", "", "}", "#", '"""', "type X { a: Int }"]))
    return " ".join([*found, *fragments]) + end


names = st.sampled_from([None, None, "A", "B", "mutation", "", 1, ["A"], True])
content_types = st.sampled_from([
    "application/json", "application/json; charset=utf-16", "Application/JSON", "application/JSON",
    "text/plain; application/json", "application/jsonx", "application/graphql", "application/graphql+json",
    "application/graphql, application/json", "text/plain", "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x", "", " application/json",
])  # fmt: skip
encodings = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, list[tuple[str, str]], list[tuple[str, str]], bytes]:
    """Method, headers, query string and body."""
    first, second = draw(documents()), draw(documents())
    name = draw(names)
    variables: object = draw(st.sampled_from([None, {}, "{}", "null", "no", [], "[]"]))
    pairs = [("query", first), ("variables", variables), ("operationName", name)]
    members = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs if value is not None]
    extra = draw(st.sampled_from(["", "twice", "escaped", "batch", "form"]))
    if extra == "twice":
        members.append(f'"query": {json.dumps(second)}')
    if extra == "escaped":
        members.append(f'"\\u0071uery": {json.dumps(second)}')
    text = "{" + ", ".join(members) + "}"
    text = {"batch": f"[{text}]", "form": first}.get(extra, text)
    query = draw(st.lists(st.sampled_from([("query", first), ("query", second), ("operationName", "A")]),
                          max_size=2))  # fmt: skip
    kinds = draw(st.just(["application/json"]) | st.lists(content_types, min_size=1, max_size=2))
    headers = [("Content-Type", kind) for kind in kinds if kind] + draw(
        st.sampled_from([[], [("Accept", "text/html")]])
    )
    return (
        draw(st.sampled_from(["POST", "POST", "GET"])),
        headers,
        query,
        text.encode(draw(encodings), "replace"),
    )


@pytest.fixture(scope="module")
def bare() -> Iterator[TestClient]:
    with TestClient(BARE.app(), raise_server_exceptions=False) as client:
        yield client


def read(method: str, headers: Any, query: Any, body: bytes) -> GraphQLRequest | None:
    raw = [(key.lower().encode(), value.encode()) for key, value in headers]
    return read_http(method, Headers(raw=raw), QueryParams(query), body)


@settings(max_examples=150)
@given(request=requests())
@example(request=("POST", [("Content-Type", "text/plain")], [("query", "mutation { change }")], b""))
@example(request=("GET", [], [("query", "{ asked }"), ("query", "mutation { change }")], b""))
@example(request=("POST", [("Content-Type", "application/json")], [],
                  '{"query": "{ asked }", "query": "mutation { change }"}'.encode("utf-16")))  # fmt: skip
def test_nothing_is_executed_that_was_not_read(bare: TestClient, request: Any) -> None:
    method, headers, query, body = request
    BARE.take_executed()
    bare.request(method, "/graphql", headers=headers, params=query, content=body)
    executed = BARE.take_executed()
    try:
        found = read(method, headers, query, body)
    except Unreadable:
        return  # refused to everybody, whatever Dagster would make of it
    if executed:
        assert_read(executed, found)


def assert_read(executed: list[tuple[str, str]], found: GraphQLRequest | None) -> None:
    """What was executed is what the auth gate said would be."""
    assert found is not None
    assert found.picked is not None
    assert {kind for kind, _ in executed} == {found.picked.kind.value}
    assert {field for _, field in executed} == set(found.picked.fields)
    assert found.has_mutation or "mutation" not in {kind for kind, _ in executed}


@settings(max_examples=100)
@given(document=documents(), name=st.sampled_from([None, "A", "B"]))
def test_what_dagster_executes_is_readable(bare: TestClient, document: str, name: str | None) -> None:
    BARE.take_executed()
    body = json.dumps({"query": document, "operationName": name}).encode()
    headers = [("Content-Type", "application/json")]
    bare.request("POST", "/graphql", headers=headers, content=body)
    if executed := BARE.take_executed():
        assert_read(executed, read("POST", headers, [], body))


def test_bare_dagster_executes_mutations_over_a_socket(bare: TestClient) -> None:
    """Why none may be sent there, not even to a viewer's read-only side."""
    query = "mutation { ticks change }"
    assert read_socket_payload({"query": query}).has_mutation
    with bare.websocket_connect("/graphql") as socket:
        socket.send_json({"type": "start", "id": "1", "payload": {"query": query}})
        socket.receive_json()
    assert ("mutation", "change") in BARE.take_executed()


def chain(operations: int, fragments: int, fields: int) -> bytes:
    """Operations that all spread one fragment, that the next, and the last many fields."""
    parts = [f"query Q{number} {{ ...F0 }}" for number in range(operations)]
    parts += [f"fragment F{number} on Query {{ ...F{number + 1} }}" for number in range(fragments - 1)]
    parts.append(f"fragment F{fragments - 1} on Query {{ {'asked ' * fields}}}")
    return json.dumps({"query": " ".join(parts), "operationName": "Q0"}).encode()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"query": "' + b"{a" * 20_000 + b'"}', "nested too deeply|recursion|cannot be parsed"),
        (b'{"query": "{' + b"a " * 50_000 + b'}"}', "cannot be parsed"),
        (json.dumps({"query": "{a}" + "#" * 300_000}).encode(), "cannot be parsed"),
        (chain(51, 1, 1), "too many operations"),
        (chain(1, 201, 1), "too many operations or fragments"),
        (chain(50, 190, 7_000), "spread too often"),
        (b"[" * 100_000, "not JSON"),
        (b'{"query": ' + b"9" * 5_000 + b"}", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b'{"query": "fragment F on Query { asked }"}', "no operation"),
        (b'{"query": "query A { asked } mutation A { change }", "operationName": "A"}', "of one name"),
        (b'{"query": "{ asked }", "variables": {"a": 1, "a": 2}}', "twice"),
    ],
)
def test_what_would_cost_much_or_mean_two_things_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(Unreadable, match=problem):
        read("POST", [("Content-Type", "application/json")], [], body)


def test_only_documents_of_usual_length_are_kept() -> None:
    kept_operations.cache_clear()
    for length, kept in ((100, 1), (LONGEST_KEPT, 2), (LONGEST_KEPT + 1, 2), (100_000, 2)):
        for _ in range(2):
            found = read_socket_payload({"query": "{ asked }".ljust(length)})
            assert found.operations[0].fields == ("asked",)
            assert kept_operations.cache_info().currsize == kept


def test_a_long_chain_is_read_to_its_end() -> None:
    found = read("POST", [("Content-Type", "application/json")], [], chain(50, 190, 5))
    assert found is not None
    assert {operation.fields for operation in found.operations} == {("asked",)}


def test_fragments_that_spread_each_other_end() -> None:
    body = json.dumps({"query": "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A asked }"})
    found = read("POST", [("Content-Type", "application/json")], [], body.encode())
    assert found is not None
    assert found.operations[0].fields == ("asked",)
