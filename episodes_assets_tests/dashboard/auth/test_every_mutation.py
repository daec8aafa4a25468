"""Every mutation of Dagster's schema: refused to viewers and nobody, however it is sent."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster_graphql.schema import create_schema
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    OperationDefinitionNode,
    get_named_type,
    is_composite_type,
    parse,
    validate,
)
from starlette.datastructures import Headers, QueryParams
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.dashboard.auth import graphql_socket
from episodes_assets.dashboard.auth.audit import describe_calls
from episodes_assets.dashboard.auth.graphql import read_calls, read_http
from episodes_assets_tests.dashboard.served import JSON, SOCKET, Dashboard

_SCHEMA: GraphQLSchema = create_schema().graphql_schema
assert _SCHEMA.mutation_type is not None
_SCALARS = {"String": '"x"', "ID": '"x"', "Int": "1", "Float": "1.5", "Boolean": "true"}


def literal(of: Any, depth: int = 0) -> str:
    """A value of an input type, all it needs and nothing more."""
    if isinstance(of, GraphQLNonNull):
        return literal(of.of_type, depth)
    if isinstance(of, GraphQLList):
        return f"[{literal(of.of_type, depth + 1)}]" if depth < 4 else "[]"
    if isinstance(of, GraphQLEnumType):
        return next(iter(of.values))
    if isinstance(of, GraphQLInputObjectType):
        needed = {k: f for k, f in of.fields.items() if isinstance(f.type, GraphQLNonNull)}
        return "{" + ", ".join(f"{k}: {literal(f.type, depth + 1)}" for k, f in needed.items()) + "}"
    return _SCALARS.get(of.name, '"x"')


def mutations() -> Iterator[Any]:
    assert _SCHEMA.mutation_type is not None
    for name, field in _SCHEMA.mutation_type.fields.items():
        arguments = ", ".join(f"{key}: {literal(argument.type)}" for key, argument in field.args.items())
        selection = " { __typename }" if is_composite_type(get_named_type(field.type)) else ""
        text = f"mutation {{ {name}{f'({arguments})' if arguments else ''}{selection} }}"
        assert validate(_SCHEMA, parse(text)) == [], text
        yield pytest.param(text, id=name)


MUTATIONS = list(mutations())
_PLACE = 'repositoryLocationName: "x", repositoryName: "x"'
_EXECUTION = f'{{mode: "default", selector: {{{_PLACE}, jobName: "x"}}}}'
# Dagster looks at these arguments before it looks at the permission.
_DEEP_ENOUGH = {
    "launchPipelineExecution": f"(executionParams: {_EXECUTION})",
    "launchRun": f"(executionParams: {_EXECUTION})",
    "launchMultipleRuns": f"(executionParamsList: [{_EXECUTION}])",
    "launchPipelineReexecution": f"(executionParams: {_EXECUTION})",
    "launchRunReexecution": f"(executionParams: {_EXECUTION})",
    "launchPartitionBackfill": '(backfillParams: {assetSelection: [{path: ["x"]}], partitionNames: ["x"]})',
    "resumePartitionBackfill": '(backfillId: "going")',
    "cancelPartitionBackfill": '(backfillId: "going")',
    "reexecutePartitionBackfill": '(reexecutionParams: {parentRunId: "done", strategy: ALL_STEPS})',
    "stopRunningSchedule": '(scheduleOriginId: "x", scheduleSelectorId: "x")',
    "stopSensor": '(jobOriginId: "x", jobSelectorId: "x")',
    "logTelemetry": '(action: "x", clientTime: "1", clientId: "x", metadata: "{}")',
}
# These answer for each run by itself.
_ANSWERS_WITHIN = {
    "launchMultipleRuns": " ... on LaunchMultipleRunsResult { launchMultipleRunsResult { __typename } }",
    "terminateRuns": " ... on TerminateRunsResult { terminateRunResults { __typename } }",
}
CHECK_WITH_ENVIRONMENT = json.dumps(
    {
        "type": "start",
        "id": "1",
        "payload": {
            "query": "query Q($config: RunConfigData) { isPipelineConfigValid("
            'mode: "default", runConfigData: $config,'
            ' pipeline: {pipelineName: "p", repositoryName: "r", repositoryLocationName: "l"})'
            " { __typename } }",
            "variables": {"config": {"deep": [{"env": "PATH"}]}},
        },
    }
)


def send(client: TestClient, query: str, **more: Any) -> Any:
    return client.post("/graphql", content=json.dumps({"query": query, **more}), headers=JSON)


def socket_end(client: TestClient, **payload: Any) -> WebSocketDisconnect:
    """How a socket ends that sends one operation."""
    return end_of(client, lambda socket: socket.send_json({"type": "start", "id": "1", "payload": payload}))


def end_of(client: TestClient, talk: Callable[[WebSocketTestSession], None]) -> WebSocketDisconnect:
    """How a socket ends after something was said on it."""
    try:
        with client.websocket_connect(f"{SOCKET}/graphql", subprotocols=["graphql-ws"]) as socket:
            socket.send_json({"type": "connection_init"})
            assert socket.receive_json() == {"type": "connection_ack"}
            talk(socket)
            socket.receive_json()
    except WebSocketDisconnect as end:
        return end
    raise AssertionError("the socket stayed open")


def test_the_schema_has_them_all() -> None:
    assert len(MUTATIONS) > 30
    assert {"launchRun", "launchPartitionBackfill", "wipeAssets", "startSensor"} <= {p.id for p in MUTATIONS}


def test_each_is_refused_to_viewers(dashboard: Dashboard) -> None:
    viewer = dashboard.client(Role.VIEWER)
    executed = {each.id for each in MUTATIONS if send(viewer, str(each.values[0])).status_code != 403}
    assert executed == set()


def test_one_is_refused_however_it_is_sent(dashboard: Dashboard) -> None:
    nobody, viewer, operator = (
        dashboard.client(),
        dashboard.client(Role.VIEWER),
        dashboard.client(Role.OPERATOR),
    )
    mutation = next(str(each.values[0]) for each in MUTATIONS if each.id == "wipeAssets")
    assert send(nobody, mutation).status_code == 401
    assert nobody.get("/graphql", params={"query": mutation}).status_code == 401
    for answer in (
        send(viewer, mutation),
        viewer.get("/graphql", params={"query": mutation}),
        viewer.post("/graphql", params={"query": mutation}),
        viewer.post("/graphql", content=mutation, headers={"Content-Type": "application/graphql"}),
        send(viewer, f"query Harmless {{ version }} {mutation.replace('mutation', 'mutation M', 1)}",
             operationName="Harmless"),
    ):  # fmt: skip
        assert answer.status_code == 403
        assert "signed in as a viewer" in answer.json()["errors"][0]["message"]
    refused = operator.get("/graphql", params={"query": mutation})
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    for client in (viewer, operator):
        end = socket_end(client, query=mutation)
        assert (end.code, end.reason) == (1008, "a mutation over a WebSocket")


def test_dagsters_own_application_for_viewers_refuses_all_but_two(dashboard: Dashboard) -> None:
    """Behind the auth gate; the two write files of the server's own and ask for no permission."""
    instance = dashboard.ui.workspace.instance
    for name, status in (("going", BulkActionStatus.REQUESTED), ("done", BulkActionStatus.COMPLETED_SUCCESS)):
        instance.add_backfill(
            PartitionBackfill(
                backfill_id=name,
                status=status,
                from_failure=False,
                tags={},
                backfill_timestamp=1.0,
                asset_selection=[dg.AssetKey("x")],
                partition_names=["x"],
            )
        )
    behind = TestClient(dashboard.ui.for_viewers, raise_server_exceptions=False)
    executed = {}
    for parameter in MUTATIONS:
        (mutation,), name = parameter.values, parameter.id
        if name in _DEEP_ENOUGH:
            selection = f"{{ __typename{_ANSWERS_WITHIN.get(name, '')} }}"
            mutation = f"mutation {{ {name}{_DEEP_ENOUGH[name]} {selection} }}"
        elif name in _ANSWERS_WITHIN:
            mutation = mutation.replace("__typename", "__typename" + _ANSWERS_WITHIN[name])
        answer = send(behind, mutation).json()
        if "UnauthorizedError" not in json.dumps(answer):
            executed[name] = answer
    assert executed == {
        "logTelemetry": {"data": {"logTelemetry": {"__typename": "LogTelemetrySuccess"}}},
        "setNuxSeen": {"data": {"setNuxSeen": True}},
    }


def test_an_operator_changes_things_and_it_is_on_record(dashboard: Dashboard) -> None:
    answer = send(
        dashboard.client(Role.OPERATOR),
        "mutation Reload($a: String) { ...Part also: reloadWorkspace { __typename } }"
        " fragment Part on Mutation { reloadWorkspace { __typename } setNuxSeen @skip(if: true) }",
        variables={"a": "never used"},
    )
    assert answer.status_code == 400  # Dagster refuses that, and it is on record
    answer = send(
        dashboard.client(Role.OPERATOR),
        "mutation Reload($a: Boolean!) { ...Part also: reloadWorkspace { __typename } }"
        " fragment Part on Mutation { reloadWorkspace { __typename } setNuxSeen @skip(if: $a) }",
        variables={"b": "x" * 50_000, "a": True},
    )
    assert answer.json()["data"]["also"]["__typename"] == "Workspace"
    first, refused, begun, done = dashboard.events("graphql mutation")[-4:]
    assert {each[0] for each in (first, refused, begun, done)} == {"operator"}
    assert [each[2] for each in (first, refused, begun, done)] == ["begun", "400", "begun", "200"]
    assert first[1]["request"] == refused[1]["request"] != begun[1]["request"] == done[1]["request"]
    assert begun[1]["operation"] == done[1]["operation"] == "Reload"
    assert begun[1]["fields"] == done[1]["fields"] == ["reloadWorkspace", "setNuxSeen"]
    assert [call["field"] for call in begun[1]["calls"]] == [
        "reloadWorkspace",
        "setNuxSeen",
        "reloadWorkspace",
    ]
    assert done[1]["answer"] == {"reloadWorkspace": "Workspace", "also": "Workspace"}


def test_what_a_mutation_is_told_is_on_record_wherever_it_stands(dashboard: Dashboard) -> None:
    operator = dashboard.client(Role.OPERATOR)
    told = [{"field": "deletePipelineRun", "arguments": {"runId": "a-run"}}]
    mutation = "mutation M($run: String!) { deletePipelineRun(runId: $run) { __typename } }"
    for document, variables in (
        ('mutation { wiped: deletePipelineRun(runId: "a-run") { __typename } }', {}),
        (mutation, {"run": "a-run"}),
        (
            mutation,
            {"long": {"inner": ["x" * 30_000]}, "k" * 3_000: 1, "many": ["y"] * 9_000, "run": "a-run"},
        ),
        (mutation.replace("String!", 'String! = "a-run"'), {}),
    ):
        send(operator, document, variables=variables)
        begun, done = dashboard.events("graphql mutation")[-2:]
        assert (begun[2], begun[1]["calls"]) == ("begun", told)
        assert len(json.dumps(begun[1])) < 1_000
        # Dagster refuses with the same status that it agrees with.
        assert (done[2], list(done[1]["answer"].values())) == ("200", ["RunNotFoundError"])


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_each_argument_is_on_record(dashboard: Dashboard, mutation: str) -> None:
    def names(of: Any) -> set[str]:
        if isinstance(of, list):
            return set().union(*map(names, of))
        return {*of, *names(list(of.values()))} if isinstance(of, dict) else set()

    (node,) = parse(mutation).definitions
    assert isinstance(node, OperationDefinitionNode)
    (found,) = [read_http("POST", Headers(JSON), QueryParams(), json.dumps({"query": mutation}).encode())]
    assert found is not None
    calls = describe_calls(read_calls(found))["calls"]
    (call,) = calls if isinstance(calls, list) else []
    assert call["field"] == node.selection_set.selections[0].name.value  # type: ignore[attr-defined]
    assert names(call["arguments"]) == set(re.findall(r"(\w+):", mutation))


def test_what_dagster_cannot_coerce_is_refused_and_on_record(dashboard: Dashboard) -> None:
    operator = dashboard.client(Role.OPERATOR)
    for document, variables in (
        ("mutation M($run: String!) { deleteRun(runId: $run) { __typename } }", {"run": 1}),
        ("mutation M($run: String!) { deleteRun(runId: $run) { __typename } }", {}),
        ("mutation M { deleteRun { __typename } }", {}),
        ("mutation M($run: Nothing) { deleteRun(runId: $run) { __typename } }", {"run": 1}),
    ):
        refused = send(operator, document, variables=variables)
        assert refused.status_code == 400
        assert "This GraphQL request is refused" in refused.text
        _, detail, outcome = dashboard.events("request refused")[-1]
        assert (outcome, detail["fields"]) == ("unreadable GraphQL", ["deleteRun"])


def test_a_viewer_asks_and_listens(dashboard: Dashboard) -> None:
    viewer = dashboard.client(Role.VIEWER)
    assert "version" in send(viewer, "query Q { version }").json()["data"]
    assert "version" in viewer.get("/graphql", params={"query": "{ version }"}).json()["data"]
    assert "GraphiQL" in viewer.get("/graphql", headers={"Accept": "text/html"}).text
    permissions = "{ permissions { permission value } }"

    def allowed(role: Role) -> set[str]:
        found = send(dashboard.client(role), permissions).json()["data"]["permissions"]
        return {each["permission"] for each in found if each["value"]}

    assert allowed(Role.VIEWER) == set()
    assert "launch_pipeline_execution" in allowed(Role.OPERATOR)
    with viewer.websocket_connect(f"{SOCKET}/graphql", subprotocols=["graphql-ws"]) as socket:
        socket.send_json({"type": "connection_init"})
        socket.receive_json()
        query = 'subscription { pipelineRunLogs(runId: "none") { __typename } }'
        socket.send_json({"type": "start", "id": "1", "payload": {"query": query}})
        shown = socket.receive_json()
        assert shown["payload"]["data"]["pipelineRunLogs"]["__typename"] == (
            "PipelineRunLogsSubscriptionFailure"
        )


@pytest.mark.parametrize(
    "message",
    [
        "no JSON",
        "[]",
        '{"type": "start", "id": "1"}',
        '{"type": "start", "id": "1", "payload": {"query": 1}}',
        '{"type": "start", "id": "1", "payload": {"query": "{"}}',
        '{"type": "start", "type": "stop"}',
        CHECK_WITH_ENVIRONMENT,
        '{"type": "start", "id": "1", "payload": {"query": "{version}", "query": "{version}"}}',
        '{"type": "subscribe", "id": "1"}',
        '{"type": ["start"]}',
        '{"type": "start", "id": [1], "payload": {"query": "subscription {a}"}}',
        '{"type": "stop", "id": {}}',
        '{"type": "stop"}',
        b"\x00",
    ],
)
def test_a_message_that_is_not_understood_closes_the_socket(
    dashboard: Dashboard, message: str | bytes
) -> None:
    kind = "text" if isinstance(message, str) else "bytes"
    received = {"type": "websocket.receive", kind: message}
    assert end_of(dashboard.client(Role.OPERATOR), lambda socket: socket.send(received)).code == 1008


def test_the_reason_of_a_closed_socket_fits_into_its_frame(dashboard: Dashboard) -> None:
    """A close frame has room for 123 bytes; whoever makes more of them would leave nothing on record."""
    long = "é" * 90
    document = f'subscription {{ "{long}" }}'
    end = socket_end(dashboard.client(Role.VIEWER), query=document)
    assert end.code == 1008
    assert "é" in end.reason
    assert len(end.reason.encode()) <= 123
    assert dashboard.events("socket closed")[-1][2].startswith(end.reason)


def test_what_dagster_cannot_go_on_with_closes_the_socket_and_is_one_line(
    dashboard: Dashboard, caplog: pytest.LogCaptureFixture
) -> None:
    sent = []

    async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise TypeError("unhashable")

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/graphql", "headers": []}
    viewer = Identity("viewer", Role.VIEWER, AuthMethod.PASSWORD)
    anyio.run(graphql_socket.guard_socket, fails, dashboard.site, viewer, scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1011}]
    (line,) = [each for each in caplog.records if each.name == graphql_socket.__name__]
    assert line.getMessage() == "viewer's socket: TypeError: unhashable"
    assert line.exc_info is None


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}])
def test_a_socket_from_another_site_is_refused(dashboard: Dashboard, headers: dict[str, str]) -> None:
    client = dashboard.client(Role.OPERATOR)
    if "Origin" in headers:
        del client.headers["Sec-Fetch-Site"]
    with (
        pytest.raises(WebSocketDisconnect) as end,
        client.websocket_connect(f"{SOCKET}/graphql", headers=headers),
    ):
        pass
    assert end.value.reason == "cross-site"


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_logout_closes_the_socket(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, is_asked: bool
) -> None:
    monkeypatch.setattr(graphql_socket, "RECHECK_SECONDS", 60 if is_asked else 0.05)
    token = dashboard.session(Role.VIEWER)
    subscribe = {"query": "subscription { locationStateChangeEvents { __typename } }"}

    def talk(socket: WebSocketTestSession) -> None:
        socket.send_json({"type": "start", "id": "1", "payload": subscribe})
        dashboard.client(token=token).post("/logout")
        if is_asked:
            socket.send_json({"type": "start", "id": "2", "payload": subscribe})

    end = end_of(dashboard.client(token=token), talk)
    assert (end.code, end.reason) == (1008, "signed out")


def test_an_open_socket_alone_does_not_keep_a_session(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphql_socket, "RECHECK_SECONDS", 0.05)
    token = dashboard.session(Role.VIEWER)

    def wait(_socket: WebSocketTestSession) -> None:
        dashboard.system.query(
            "dagster",
            "UPDATE dashboard.sessions SET seen_at = now() - interval '59 minutes 59.5 seconds'"
            " WHERE token_hash = sha256(%s::bytea)",
            [token.encode()],
        )

    assert end_of(dashboard.client(token=token), wait).reason == "signed out"
