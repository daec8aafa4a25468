"""What every request is held to: where it comes from, whom it names, how large it is; and every answer."""

import bisect
import hashlib
import json
from dataclasses import replace
from typing import Any, cast

import anyio
import httpx2
import pytest
from anyio import to_thread
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from episodes_assets.accounts import audit, sessions
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.accounts.pool import AccountsAccess
from episodes_assets.dashboard.app import PUBLIC_FILES, create_application
from episodes_assets.dashboard.auth import gate
from episodes_assets.dashboard.auth.csrf import is_same_origin
from episodes_assets.dashboard.configuration import AuthMethods
from episodes_assets.dashboard.pages import STATIC
from episodes_assets.errors import DatabaseUnreachable
from episodes_assets_tests.dashboard.served import HOST, JSON, Dashboard

CHANGE = "/report_asset_materialization/input_episodes"


@pytest.mark.parametrize(
    ("headers", "is_ours"),
    [
        ([("sec-fetch-site", "same-origin")], True),
        ([("sec-fetch-site", "none")], True),
        ([("sec-fetch-site", "same-site")], False),
        ([("sec-fetch-site", "cross-site")], False),
        ([("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], False),
        ([("sec-fetch-site", "cross-site"), ("origin", "https://here.example")], False),
        ([("sec-fetch-site", "Same-Origin")], False),
        ([], False),
        ([("origin", "https://here.example")], True),
        ([("origin", "https://here.example:443")], True),
        ([("origin", "https://HERE.example")], True),
        ([("origin", "http://here.example")], False),
        ([("origin", "https://here.example:444")], False),
        ([("origin", "https://here.example.evil.example")], False),
        ([("origin", "https://evil.example")], False),
        ([("origin", "https://here.example"), ("origin", "https://here.example")], False),
        ([("origin", "null")], False),
        ([("origin", "")], False),
        ([("origin", "https://here.example:no")], False),
    ],
)
def test_which_requests_come_from_our_pages(headers: list[tuple[str, str]], is_ours: bool) -> None:
    raw = [(key.encode(), value.encode()) for key, value in [("host", "here.example"), *headers]]
    assert is_same_origin(Headers(raw=raw), is_secure=True) is is_ours


def test_a_change_from_another_site_is_refused_and_on_record(dashboard: Dashboard) -> None:
    operator = dashboard.client(Role.OPERATOR)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        for path in (CHANGE, "/graphql", "/logout"):
            refused = operator.post(path, headers=headers)
            assert refused.status_code == 403
            assert "does not come from a page of the dashboard" in refused.text
    assert operator.get("/runs").status_code == 200
    assert dashboard.events("request refused")[-1][2] == "cross-site"
    del operator.headers["Sec-Fetch-Site"]
    assert operator.post(CHANGE).status_code == 403
    assert operator.post(CHANGE, headers={"Origin": "http://evil.example"}).status_code == 403
    assert operator.post(CHANGE, headers={"Origin": f"http://{HOST}"}).status_code == 200


def test_a_script_with_a_token_needs_no_browser(dashboard: Dashboard) -> None:
    for role, status in ((Role.VIEWER, 403), (Role.OPERATOR, 200)):
        token = dashboard.accounts(sessions.create_token, f"{role.value}-script", role, None)
        script = dashboard.client()
        del script.headers["Sec-Fetch-Site"]
        answer = script.post(CHANGE, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status
    begun, done = dashboard.events("request")[-2:]
    assert [(who, outcome) for who, _, outcome in (begun, done)] == [
        ("operator-script", "begun"),
        ("operator-script", "200"),
    ]
    assert begun[1]["request"] == done[1]["request"]
    assert (begun[1]["method"], begun[1]["path"]) == ("POST", CHANGE)


def test_what_was_reported_is_on_record(dashboard: Dashboard) -> None:
    operator = dashboard.client(Role.OPERATOR)
    assert operator.post("/report_asset_materialization/?asset_key=in_query&partition=p").status_code == 200
    body = {"metadata": {"long": "x" * 3_000}, "asset_key": ["in_body"]}
    assert operator.post("/report_asset_materialization/", json=body).status_code == 200
    operator.post("/report_asset_materialization/", content=b"\xff" * 2_000, headers=JSON)
    in_query, in_body, odd = (
        detail for _, detail, outcome in dashboard.events("request")[-6:] if outcome == "begun"
    )
    assert in_query["query"] == "asset_key=in_query&partition=p"
    assert json.loads(in_body["body"]) == body
    assert odd["body"] == "\ufffd" * 2_000
    assert odd["sha256"] == hashlib.sha256(b"\xff" * 2_000).hexdigest()


def test_what_is_too_much_to_record_is_not_reported(dashboard: Dashboard) -> None:
    operator = dashboard.client(Role.OPERATOR)
    before = dashboard.events("request")
    for path, content in ((CHANGE, b"{" + b" " * 20_000 + b"}"), (f"{CHANGE}?partition={'p' * 20_000}", b"")):
        refused = operator.post(path, content=content, headers=JSON)
        assert refused.status_code == 413
        assert "more than the audit log keeps of one request" in refused.text
        assert dashboard.events("request refused")[-1][2] == "too much for the audit log"
    assert dashboard.events("request") == before


def test_what_just_fits_is_on_record_whole(dashboard: Dashboard) -> None:
    """With the id by which its two events are found together."""

    def longest(**more: str) -> int:
        def is_cut(length: int) -> int:
            recorded = {"method": "POST", "path": CHANGE, "body": "x" * length, "sha256": "0" * 64, **more}
            return int(not audit.fits(recorded))

        return bisect.bisect_left(range(audit.LONGEST_DETAIL), 1, key=is_cut) - 1

    operator = dashboard.client(Role.OPERATOR)
    most = longest(request="0" * 8)
    for length in (longest(), most + 1):
        assert operator.post(CHANGE, content=b"x" * length).status_code == 413, length
    operator.post(CHANGE, content=b"x" * most)
    (_, begun, _), (_, done, _) = dashboard.events("request")[-2:]
    assert begun["request"] == done["request"]
    assert begun["body"] == "x" * most


@pytest.mark.parametrize("is_graphql", [True, False])
def test_what_cannot_be_on_record_is_not_done(dashboard: Dashboard, is_graphql: bool) -> None:
    class Forgetful:
        """Accounts in which nothing can be recorded any more."""

        async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
            if function is audit.record:
                raise DatabaseUnreachable("cannot reach it")
            return await dashboard.site.accounts.run(function, *args, **kwargs)

        async def run_within(self, _seconds: float, function: Any, *args: Any, **kwargs: Any) -> Any:
            return await self.run(function, *args, **kwargs)

    done = []

    async def do(request: Request) -> Response:
        done.append(request.url.path)
        return PlainTextResponse("done")

    site = replace(dashboard.site, accounts=cast("AccountsAccess", Forgetful()))
    pages = [Route("/do", do, methods=["POST"])]
    served = replace(dashboard, site=site, app=create_application(site, dashboard.ui, pages=pages))
    operator = served.client(Role.OPERATOR)
    query = {"query": "mutation { reloadWorkspace { __typename } }"}
    refused = operator.post("/graphql", json=query) if is_graphql else operator.post("/do")
    assert (refused.status_code, done) == (503, [])
    assert "data" not in refused.json()


def test_a_change_is_on_record_before_it_happens(dashboard: Dashboard) -> None:
    seen = []

    async def do(_request: Request) -> Response:
        seen.append(dashboard.events("request")[-1])
        raise SystemError("and it never says how it went")

    served = dashboard.again(pages=(Route("/do", do, methods=["POST"]),))
    assert served.client(Role.OPERATOR).post("/do").status_code == 500
    ((who, detail, outcome),) = seen
    assert (who, detail["path"], outcome) == ("operator", "/do", "begun")
    assert dashboard.events("request")[-1][1]["request"] == detail["request"]


def test_whoever_has_proven_no_name_adds_nothing_to_the_audit_log(dashboard: Dashboard) -> None:
    before = dashboard.system.query("dagster", "SELECT count(*) FROM dashboard.audit_log")
    for client, headers in (
        (dashboard.client(token="junk"), {}),
        (dashboard.client(), {"Authorization": "Bearer episodes_junk"}),
        (dashboard.client(token="junk"), {"Sec-Fetch-Site": "cross-site"}),
    ):
        for path in ("/runs", "/graphql", "/login"):
            assert client.post(path, headers=headers, content=b"x" * 30_000).status_code in (401, 403, 413)
    assert dashboard.system.query("dagster", "SELECT count(*) FROM dashboard.audit_log") == before


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::2]"]
)
def test_a_name_that_is_made_to_point_here_is_refused(dashboard: Dashboard, host: str) -> None:
    for path in ("/login", "/healthz", "/"):
        assert dashboard.client(Role.OPERATOR).get(path, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:3000", "127.0.0.1:8080", "[::1]:3000", "LOCALHOST"])
def test_names_of_this_machine_are_served(dashboard: Dashboard, host: str) -> None:
    assert dashboard.client().get("/login", headers={"Host": host}).status_code == 200


def test_no_answer_is_framed_sniffed_or_kept(dashboard: Dashboard) -> None:
    operator, nobody = dashboard.client(Role.OPERATOR), dashboard.client()
    answers = [
        nobody.get("/login"), nobody.get("/runs"), nobody.get("/healthz"),
        nobody.get("/", headers={"Host": "x"}),
        nobody.post("/login", headers={"Sec-Fetch-Site": "cross-site"}), operator.get("/"),
        operator.get("/graphql", params={"query": "{ version }"}), operator.get("/favicon.png"),
        operator.get("/graphql", headers={"Accept": "text/html"}), operator.get("/metrics"),
        operator.get("/download_debug/none"), nobody.get("/dashboard/static/dashboard.css"),
    ]  # fmt: skip
    assert {answer.status_code for answer in answers} == {200, 400, 401, 403, 500}
    for answer in answers:
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] in ("no-store", "private")
        assert "server" not in answer.headers
    for answer in (nobody.get("/login"), nobody.get("/runs")):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
    # Dagster's own stays what it is.
    assert "script-src 'nonce-" in operator.get("/").headers["content-security-policy"]


def test_every_page_of_dagsters_has_the_strip(dashboard: Dashboard) -> None:
    page = dashboard.client(Role.VIEWER).get("/assets/input_episodes")
    assert '<form method="post" action="/logout">' in page.text
    assert "viewer (viewer)" in page.text
    assert page.text.endswith("</aside></body></html>")
    assert int(page.headers["content-length"]) == len(page.content)
    head = dashboard.client(Role.VIEWER).head("/assets/input_episodes")
    assert head.headers["content-length"] == page.headers["content-length"]


def test_a_name_is_shown_and_not_run(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AuthMethods, "admit", lambda _, identity: identity)  # whoever let that in
    name = "<img src=x onerror=alert(1)>@example.org"
    who = Identity(name, Role.VIEWER, AuthMethod.OIDC)
    token = dashboard.accounts(sessions.start_session, who, dashboard.configuration.lifetimes)
    page = dashboard.client(token=token).get("/").text
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_large_and_slow_bodies_are_given_up(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = dashboard.client(Role.OPERATOR)
    for chunk, path, status in (
        (10_000_000, CHANGE, 413),
        (20_000, "/login", 413),
    ):
        assert operator.post(path, content=b"x" * (chunk + 1), headers=JSON).status_code == status
        assert operator.post(path, content=iter([b"x" * chunk, b"x"]), headers=JSON).status_code == status
    monkeypatch.setattr(gate, "LONGEST_SECONDS", 0.01)

    async def never() -> dict[str, object]:
        await anyio.sleep_forever()
        raise AssertionError

    async def read() -> None:
        with pytest.raises(TimeoutError):
            await gate.read_body({"type": "http", "headers": []}, never, 10)

    anyio.run(read)


def test_health_is_one_word_to_everybody(dashboard: Dashboard) -> None:
    nobody = dashboard.client()
    assert (nobody.get("/healthz").status_code, nobody.get("/healthz").text) == (200, "ok")


def test_public_files_need_none_of_the_threads_that_wait_for_databases(dashboard: Dashboard) -> None:
    """One of them is the probe of whether the process lives."""

    async def ask() -> dict[str, httpx2.Response]:
        threads = to_thread.current_default_thread_limiter()
        for _ in range(int(threads.total_tokens)):
            threads.acquire_on_behalf_of_nowait(object())
        transport = httpx2.ASGITransport(dashboard.app)
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            with anyio.fail_after(1):
                return {name: await client.get(f"/dashboard/static/{name}") for name in PUBLIC_FILES}

    for name, answer in anyio.run(ask).items():
        assert answer.status_code == 200
        assert answer.content == (STATIC / name).read_bytes()
        assert answer.headers["content-type"].startswith(
            {"css": "text/css", "svg": "image/svg+xml"}[name[-3:]]
        )
        assert {"etag", "last-modified", "content-length"} <= set(answer.headers)


def test_an_accounts_database_that_is_away_closes_all_and_says_so(dashboard: Dashboard) -> None:
    class Away:
        def connection(self) -> None:
            raise DatabaseUnreachable("cannot reach it")

    token = dashboard.session(Role.OPERATOR)
    site = replace(dashboard.site, accounts=AccountsAccess(cast("Any", Away())))
    broken = replace(dashboard, site=site, app=create_application(site, dashboard.ui))
    client = broken.client(token=token)
    refused = client.get("/runs")
    assert refused.status_code == 503
    assert "away; try again" in refused.text
    assert client.get("/healthz").status_code == 503
    assert client.get("/healthz").text == "unavailable"
    assert client.get("/login").status_code == 200
    assert client.post("/login", data={"name": "operator", "password": "x"}).status_code == 503


def test_what_is_counted(dashboard: Dashboard) -> None:
    served = dashboard.again()
    viewer = served.client(Role.VIEWER)
    viewer.post("/login", data={"name": "counted", "password": "no"})
    viewer.post("/graphql", json={"query": "{ version }"})
    viewer.post("/graphql", json={"query": "mutation { reloadWorkspace { __typename } }"})
    assert served.client().get("/metrics").status_code == 401
    counted = viewer.get("/metrics").text
    for line in (
        'episodes_logins_total{outcome="refused",way="password"} 1.0',
        'episodes_requests_total{role="viewer",status="200"} 1.0',
        'episodes_requests_total{role="viewer",status="403"} 1.0',
        'episodes_requests_total{role="nobody",status="401"} 1.0',
        'episodes_graphql_operations_total{kind="query",role="viewer"} 1.0',
        'episodes_requests_refused_total{reason="viewer"} 1.0',
        'episodes_requests_refused_total{reason="not signed in"} 1.0',
        "episodes_backlog_jobs 0.0",
        "episodes_workers_alive 0.0",
    ):
        assert line in counted.splitlines(), line
    assert 'episodes_request_seconds_bucket{le="+Inf",role="viewer"} 3.0' in counted
    # No name, no path, nothing that somebody sent is a label.
    assert "counted" not in counted
