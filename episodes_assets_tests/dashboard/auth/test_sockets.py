"""What one WebSocket may ask of Dagster, how much at once, and how many of them one identity may have."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import pytest
from dagster_graphql.schema import create_schema
from graphql import ExecutionResult, parse, validate
from starlette.testclient import WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard import dagster_ui
from episodes_assets.dashboard.auth import graphql_socket
from episodes_assets.dashboard.dagster_ui import SubscriptionSchema
from episodes_assets_tests.dashboard import ui_documents
from episodes_assets_tests.dashboard.served import SOCKET, Dashboard

GOES_ON = "subscription { locationStateChangeEvents { __typename } }"
ENDS_AT_ONCE = 'subscription { pipelineRunLogs(runId: "none") { __typename } }'
INVALID = "subscription { nothing }"


@contextmanager
def talking(dashboard: Dashboard, token: str | None = None) -> Iterator[WebSocketTestSession]:
    """A WebSocket of a viewer, or of a service token."""
    client = dashboard.client(None if token else Role.VIEWER)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with client.websocket_connect(
        f"{SOCKET}/graphql", subprotocols=["graphql-ws"], headers=headers
    ) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}
        yield socket


def start(socket: WebSocketTestSession, operation: str, query: str = GOES_ON) -> None:
    socket.send_json({"type": "start", "id": operation, "payload": {"query": query}})


def subscribe_once_too_often(dashboard: Dashboard) -> None:
    with talking(dashboard) as socket:
        for number in range(graphql_socket.MOST_SUBSCRIPTIONS):
            start(socket, str(number))
        start(socket, "0")  # that goes on already
        # A stopped one makes room for another.
        socket.send_json({"type": "stop", "id": "7"})
        start(socket, "last", ENDS_AT_ONCE)
        assert [socket.receive_json()["type"] for _ in range(2)] == ["data", "complete"]
        start(socket, "7")
        start(socket, "one more")
        socket.receive_json()


def test_a_socket_has_so_many_subscriptions_at_once(dashboard: Dashboard) -> None:
    with pytest.raises(WebSocketDisconnect) as end:
        subscribe_once_too_often(dashboard)
    assert (end.value.code, end.value.reason) == (1008, "more than 20 subscriptions at once")


def test_what_has_ended_by_itself_is_forgotten(dashboard: Dashboard) -> None:
    """Also by Dagster, which would ignore another operation of its id."""
    with talking(dashboard) as socket:
        for number in range(graphql_socket.MOST_SUBSCRIPTIONS + 5):
            start(socket, str(number), ENDS_AT_ONCE)
            assert [socket.receive_json()["type"] for _ in range(2)] == ["data", "complete"]
            start(socket, f"{number} again", INVALID)
            assert socket.receive_json()["type"] == "error"
        start(socket, "0", ENDS_AT_ONCE)
        assert [socket.receive_json()["type"] for _ in range(2)] == ["data", "complete"]


def test_an_identity_has_so_many_sockets(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    assert graphql_socket.MOST_SOCKETS == 30
    monkeypatch.setattr(graphql_socket, "MOST_SOCKETS", 3)
    mine, others = (
        dashboard.accounts(sessions.create_token, name, Role.VIEWER, None) for name in ("many", "few")
    )
    with ExitStack() as sockets:
        for _ in range(2):
            sockets.enter_context(talking(dashboard, mine))
        with talking(dashboard, mine):
            with pytest.raises(WebSocketDisconnect) as end, talking(dashboard, mine):
                pass
            assert end.value.reason == "too many sockets"
            with talking(dashboard, others):
                pass
        with talking(dashboard, mine):  # one has been closed
            pass


def test_what_the_ui_subscribes_to_is_let_through(dashboard: Dashboard) -> None:
    found, schema = ui_documents.subscriptions(), create_schema().graphql_schema
    assert {"PipelineRunLogsSubscription", "AssetLiveRunLogsSubscription"} <= set(found)
    for name, document in found.items():
        message = ui_documents.message(name, document)
        assert validate(schema, parse(document)) == [], name
        # With room for what a release adds.
        assert len(document) < 0.8 * graphql_socket.LONGEST_DOCUMENT, name
        assert len(message.encode()) < 0.8 * graphql_socket.LONGEST_MESSAGE, name
        with talking(dashboard) as socket:
            socket.send_text(message)
            # Its variables are the right ones, and Dagster's answer is that it is still there.
            start(socket, "then", ENDS_AT_ONCE)
            while (answer := socket.receive_json())["id"] != "then":
                assert answer["type"] != "error"


def ask(dashboard: Dashboard, query: str) -> None:
    with talking(dashboard) as socket:
        start(socket, "1", query)
        socket.receive_json()


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            f"subscription {{ locationStateChangeEvents {{ {'__typename ' * 1_800} }} }}",
            "a document of more than",
        ),
        ("{ version }", "no subscription"),
        (
            "query A { version } subscription B { locationStateChangeEvents { __typename } }",
            "no subscription",
        ),
        ("mutation { logTelemetry }", "a mutation over"),
    ],
)
def test_anything_but_a_short_subscription_closes_the_socket(
    dashboard: Dashboard, query: str, reason: str
) -> None:
    with pytest.raises(WebSocketDisconnect) as end:
        ask(dashboard, query)
    assert end.value.code == 1008
    assert end.value.reason.startswith(reason)


def test_a_subscription_is_validated_once_and_never_in_the_event_loop(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes up to a second of a processor, for which everybody would wait."""
    threads: list[int] = []

    def noting(*arguments: Any) -> Any:
        threads.append(threading.get_ident())
        return validate(*arguments)

    monkeypatch.setattr(dagster_ui, "validate", noting)
    schema = SubscriptionSchema(create_schema())

    async def subscribe(query: str) -> Any:
        return await schema.subscribe(query, variables=None, operation_name=None, context=None)

    async def subscribe_again_and_again() -> tuple[int, list[Any]]:
        found = [await subscribe(query) for query in (GOES_ON, GOES_ON, INVALID, "{", INVALID)]
        return threading.get_ident(), found

    loop, (first, second, *invalid) = anyio.run(subscribe_again_and_again)
    assert not isinstance(first, ExecutionResult)
    assert not isinstance(second, ExecutionResult)
    assert [len(each.errors or ()) for each in invalid] == [1, 1, 1]
    assert len(threads) == 2  # of what was read before, and of what cannot be parsed, nothing is validated
    assert loop not in threads
    # It is what serves.
    for app in (dashboard.ui.for_operators, dashboard.ui.for_viewers):
        (route,) = [each for each in app.routes if getattr(each, "name", None) == "graphql-ws"]
        assert isinstance(route.endpoint.__self__._graphene_schema, SubscriptionSchema)  # type: ignore[attr-defined]
