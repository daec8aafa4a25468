"""What one WebSocket may ask of Dagster at once, and how many of them one identity may have."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from starlette.testclient import WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.auth import graphql_socket
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


def test_a_socket_has_so_many_subscriptions_at_once(dashboard: Dashboard) -> None:
    with pytest.raises(WebSocketDisconnect) as end, talking(dashboard) as socket:
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
