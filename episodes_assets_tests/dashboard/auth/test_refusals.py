"""Nobody who may change nothing fills the audit log, from which nothing is ever deleted."""

import time
from typing import Any

import anyio
import httpx2
import pytest
from starlette.websockets import WebSocketDisconnect

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard import site
from episodes_assets_tests.dashboard.served import HOST, SOCKET, Dashboard

# As many and as long names as one document may have.
LONG = "mutation { " + " ".join(f"f{number:02}{'x' * 497}" for number in range(49)) + " }"
SHORT = "mutation { reloadWorkspace { __typename } }"


def bearer(dashboard: Dashboard, name: str, role: Role = Role.VIEWER) -> dict[str, str]:
    return {"Authorization": f"Bearer {dashboard.accounts(sessions.create_token, name, role, None)}"}


def rows_of(dashboard: Dashboard, who: str) -> tuple[int, int]:
    """How many events there are of somebody, and their bytes."""
    ((rows, size),) = dashboard.system.query(
        "dagster",
        "SELECT count(*), coalesce(sum(octet_length(audit_log::text)), 0) FROM dashboard.audit_log"
        " WHERE who = %s",
        [who],
    )
    return int(rows), int(size)


def say_nonsense(dashboard: Dashboard, headers: dict[str, str]) -> None:
    with dashboard.client().websocket_connect(
        f"{SOCKET}/graphql", subprotocols=["graphql-ws"], headers=headers
    ) as talk:
        talk.send_text("no JSON")
        talk.receive_json()


@pytest.mark.long
def test_a_script_that_is_refused_again_and_again_adds_little(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "REFUSALS_SECONDS", 3_600)  # longer than this takes
    headers = bearer(dashboard, "loop")

    async def ask() -> set[int]:
        transport = httpx2.ASGITransport(dashboard.app)
        async with httpx2.AsyncClient(
            transport=transport, base_url=f"http://{HOST}", headers=headers
        ) as loop:
            statuses = {(await loop.post("/graphql", json={"query": LONG})).status_code for _ in range(300)}
            for path in (f"/{'p' * 5_000}", "/report_asset_materialization/x"):
                statuses.add((await loop.post(path)).status_code)
            # It ends no session, so that there is nothing to record.
            assert {(await loop.post("/logout")).status_code for _ in range(30)} == {303}
            return statuses

    assert anyio.run(ask) == {403}
    for _ in range(3):
        with pytest.raises(WebSocketDisconnect):
            say_nonsense(dashboard, headers)
    rows, size = rows_of(dashboard, "loop")
    assert rows == site.RECORDED_REFUSALS
    assert size <= 30_000
    # Others have limits of their own, and what is done is recorded however much was refused.
    assert (
        dashboard.client()
        .post("/graphql", json={"query": SHORT}, headers=bearer(dashboard, "other"))
        .status_code
        == 403
    )
    assert rows_of(dashboard, "other")[0] == 1


def test_how_many_were_left_out_is_recorded_when_the_minute_is_over(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "RECORDED_REFUSALS", 2)
    monkeypatch.setattr(site, "REFUSALS_SECONDS", 1.0)
    headers = bearer(dashboard, "hasty")
    with dashboard.client() as client:  # one event loop, as in a server
        for _ in range(30):
            assert client.post("/graphql", json={"query": SHORT}, headers=headers).status_code == 403
        deadline = time.monotonic() + 30
        while (found := accounted_for(dashboard, "hasty"))[0] < 30:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert found[0] == 30
    assert found[1]


def accounted_for(dashboard: Dashboard, name: str) -> tuple[int, list[Any]]:
    """How many refusals the events tell of, and which events tell of several."""
    outcomes = [outcome for who, _, outcome in dashboard.events("request refused") if who == name]
    summaries = [each for each in outcomes if each.endswith(" more refused")]
    return len(outcomes) - len(summaries) + sum(int(each.split()[0]) for each in summaries), summaries


def test_an_operators_changes_are_all_on_record_whatever_was_refused(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "RECORDED_REFUSALS", 0)
    monkeypatch.setattr(site, "REFUSALS_SECONDS", 3_600)
    headers = bearer(dashboard, "busy", Role.OPERATOR)
    client = dashboard.client()
    for _ in range(3):
        assert client.get("/graphql", params={"query": SHORT}, headers=headers).status_code == 405
        assert client.post("/graphql", json={"query": SHORT}, headers=headers).status_code == 200
    outcomes = [outcome for who, _, outcome in dashboard.events("graphql mutation") if who == "busy"]
    assert outcomes == ["begun", "200"] * 3
    assert rows_of(dashboard, "busy")[0] == 6
