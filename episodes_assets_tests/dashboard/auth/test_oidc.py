"""Signing in through a real OpenID Connect provider, and every case of it that must fail."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from episodes_assets.accounts.identity import Identity
from episodes_assets.dashboard.auth import oidc
from episodes_assets.dashboard.auth.login import OidcRefusal, sentence_of
from episodes_assets.dashboard.auth.oidc import (
    SECURE_STATE_COOKIE,
    STATE_COOKIE,
    STATE_SECONDS,
    oidc_routes,
)
from episodes_assets.dashboard.configuration import OidcAccess, OidcProvider
from episodes_assets_tests.dashboard.oidc_provider.running import Provider, query_of, running_provider

HOST = "http://127.0.0.1"
RETURN = f"{HOST}/auth/openid/callback"
ACCESS = OidcAccess(viewers=frozenset({"*@example.com"}), operators=frozenset({"ann@example.com"}))


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with running_provider(tmp_path_factory.mktemp("provider"), RETURN) as running:
        yield running


@dataclass
class Dashboard:
    """The pages below /auth, and what came of each sign-in."""

    oidc: OidcProvider
    key: str = "a key of the test"
    records: list[dict[str, Any]] = field(default_factory=list)

    def browser(self, *, is_secure: bool = False) -> TestClient:
        routes = oidc_routes(
            self.oidc, sign_in=self._sign_in, record=self._record, signing_key=self.key, is_secure=is_secure
        )
        return TestClient(Starlette(routes=routes), base_url=HOST, follow_redirects=False)

    @staticmethod
    async def _sign_in(request: Request, identity: Identity, wanted: str) -> Response:  # noqa: ARG004
        return JSONResponse(
            {"name": identity.name, "role": identity.role, "method": identity.method, "to": wanted}
        )

    async def _record(
        self,
        connection: HTTPConnection,
        what: str,
        outcome: str,
        *,
        name: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> None:
        assert connection.url.path.startswith("/auth/openid")
        self.records.append({"what": what, "outcome": outcome, "name": name, **(detail or {})})


@pytest.fixture
def dashboard(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Dashboard:
    monkeypatch.setattr(oidc, "ANSWER_SECONDS", 120.0)  # the provider's process may be a slow one
    return Dashboard(
        OidcProvider(
            provider.issuer, "Example", "dashboard", SecretStr(provider.clients["dashboard"]), ACCESS
        )
    )


def leave(browser: TestClient, wanted: str = "/runs") -> str:
    """Where the dashboard sends a browser to sign in."""
    answer = browser.get("/auth/openid", params={"next": wanted})
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


def refused(
    answer: httpx2.Response, dashboard: Dashboard, why: OidcRefusal, *, on_record: bool = True
) -> None:
    """Insist that a sign-in ended on the login page, with a sentence, and in the audit log if it was one."""
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith("/login?")
    assert query_of(answer.headers["location"])["refused"] == why, dashboard.records
    assert sentence_of(why)
    assert [(r["what"], r["outcome"]) for r in dashboard.records] == [("login", "refused")] * on_record


@pytest.mark.parametrize(
    ("person", "name", "role"),
    [
        ("ann", "ann@example.com", "operator"),
        ("bob", "bob@example.com", "viewer"),
        ("quiet", "ann@example.com", "operator"),
    ],
)
def test_somebody_who_is_let_in(
    provider: Provider, dashboard: Dashboard, person: str, name: str, role: str
) -> None:
    browser = dashboard.browser()
    there = leave(browser, "/runs?q=1&view=2")
    asked = query_of(there)
    assert there.startswith(f"{provider.issuer}/authorize/")
    assert asked["code_challenge_method"] == "S256"
    assert {"state", "nonce", "code_challenge"} <= set(asked)
    answer = browser.get(provider.answer(there, person))
    assert answer.json() == {"name": name, "role": role, "method": "openid", "to": "/runs?q=1&view=2"}
    assert STATE_COOKIE not in browser.cookies
    assert dashboard.records == []


@pytest.mark.parametrize(
    ("person", "why"),
    [
        ("eve", OidcRefusal.NOT_LET_IN),
        ("una", OidcRefusal.UNVERIFIED),
        ("una_in_words", OidcRefusal.UNVERIFIED),
        ("nobody", OidcRefusal.UNVERIFIED),
        ("expired", OidcRefusal.UNPROVEN),
        ("other_audience", OidcRefusal.UNPROVEN),
        ("other_audience_for_us", OidcRefusal.UNPROVEN),
        ("other_issuer", OidcRefusal.UNPROVEN),
        ("other_nonce", OidcRefusal.UNPROVEN),
        ("no_nonce", OidcRefusal.UNPROVEN),
        ("unsigned", OidcRefusal.UNPROVEN),
        ("other_key", OidcRefusal.UNPROVEN),
    ],
)
def test_somebody_who_is_not(provider: Provider, dashboard: Dashboard, person: str, why: OidcRefusal) -> None:
    browser = dashboard.browser()
    answer = browser.get(provider.answer(leave(browser), person))
    refused(answer, dashboard, why)
    assert query_of(answer.headers["location"])["next"] == "/runs"


def test_somebody_who_changes_their_mind(provider: Provider, dashboard: Dashboard) -> None:
    browser = dashboard.browser()
    answer = browser.get(provider.answer(leave(browser), "ann", agree=False))
    refused(answer, dashboard, OidcRefusal.CANCELLED)


def test_a_token_signed_with_the_clients_secret_proves_nothing(
    provider: Provider, dashboard: Dashboard
) -> None:
    secret = SecretStr(provider.clients["symmetric"])
    dashboard.oidc = replace(dashboard.oidc, client_id="symmetric", client_secret=secret)
    browser = dashboard.browser()
    refused(browser.get(provider.answer(leave(browser), "ann")), dashboard, OidcRefusal.UNPROVEN)


def test_a_changed_state(provider: Provider, dashboard: Dashboard) -> None:
    browser = dashboard.browser()
    back = httpx2.URL(provider.answer(leave(browser), "ann")).copy_set_param("state", "another")
    refused(browser.get(str(back)), dashboard, OidcRefusal.NOT_BEGUN, on_record=False)


def test_a_sign_in_that_another_browser_began(provider: Provider, dashboard: Dashboard) -> None:
    """So that nobody is made to sign in as somebody else."""
    back = provider.answer(leave(dashboard.browser()), "ann")
    refused(dashboard.browser().get(back), dashboard, OidcRefusal.NOT_BEGUN, on_record=False)


def test_a_cookie_that_we_did_not_sign(provider: Provider, dashboard: Dashboard) -> None:
    forger = replace(dashboard, key="another key").browser()
    back = provider.answer(leave(forger), "ann")
    browser = dashboard.browser()
    browser.cookies.update(forger.cookies)
    refused(browser.get(back), dashboard, OidcRefusal.NOT_BEGUN, on_record=False)


def test_a_sign_in_that_was_begun_long_ago(
    provider: Provider, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = dashboard.browser()
    back = provider.answer(leave(browser), "ann")
    cookie = browser.cookies[STATE_COOKIE]
    from itsdangerous import TimestampSigner

    now = TimestampSigner.get_timestamp
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: now(self) + STATE_SECONDS + 1)
    answer = browser.get(back, headers={"Cookie": f"{STATE_COOKIE}={cookie}"})
    refused(answer, dashboard, OidcRefusal.NOT_BEGUN, on_record=False)


def test_a_code_that_was_used_before(provider: Provider, dashboard: Dashboard) -> None:
    """Even by somebody who kept the cookie that went with it."""
    browser = dashboard.browser()
    back = provider.answer(leave(browser), "ann")
    kept = browser.cookies[STATE_COOKIE]
    assert browser.get(back).status_code == 200
    refused(browser.get(back), dashboard, OidcRefusal.NOT_BEGUN, on_record=False)
    dashboard.records.clear()
    answer = dashboard.browser().get(back, headers={"Cookie": f"{STATE_COOKIE}={kept}"})
    refused(answer, dashboard, OidcRefusal.UNPROVEN)


def test_a_code_that_was_given_to_another_client(provider: Provider, dashboard: Dashboard) -> None:
    another = httpx2.URL(leave(dashboard.browser())).copy_set_param("client_id", "another")
    code = query_of(provider.answer(str(another), "ann"))["code"]
    browser = dashboard.browser()
    state = query_of(leave(browser))["state"]
    answer = browser.get("/auth/openid/callback", params={"code": code, "state": state})
    refused(answer, dashboard, OidcRefusal.UNPROVEN)


def test_a_code_that_another_browsers_sign_in_was_given(provider: Provider, dashboard: Dashboard) -> None:
    """A stolen code is worth nothing without the verifier in the cookie of who began it."""
    stolen = query_of(provider.answer(leave(dashboard.browser()), "ann"))["code"]
    thief = dashboard.browser()
    state = query_of(leave(thief))["state"]
    answer = thief.get("/auth/openid/callback", params={"code": stolen, "state": state})
    refused(answer, dashboard, OidcRefusal.UNPROVEN)


def test_the_provider_insists_on_the_verifier(provider: Provider, dashboard: Dashboard) -> None:
    """Or the test before this one would show nothing."""
    code = query_of(provider.answer(leave(dashboard.browser()), "ann"))["code"]
    answer = httpx2.post(
        f"{provider.issuer}/token/",
        auth=("dashboard", provider.clients["dashboard"]),
        data={"grant_type": "authorization_code", "code": code, "redirect_uri": RETURN},
    )
    assert answer.status_code == 400
    assert "code_verifier" in answer.text.lower() or "verifier" in answer.text.lower(), answer.text


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/login"]
)
def test_the_page_after_it_is_one_of_ours(provider: Provider, dashboard: Dashboard, wanted: str) -> None:
    browser = dashboard.browser()
    answer = browser.get(provider.answer(leave(browser, wanted), "ann"))
    assert answer.json()["to"] == "/"


def test_the_cookie_in_between(dashboard: Dashboard) -> None:
    header = dashboard.browser().get("/auth/openid").headers["set-cookie"].lower()
    assert header.startswith(f"{STATE_COOKIE}=")
    for attribute in ("path=/auth;", f"max-age={STATE_SECONDS};", "httponly", "samesite=lax"):
        assert attribute in header
    assert "secure" not in header


def test_the_cookie_in_between_over_tls_is_from_us_alone(dashboard: Dashboard) -> None:
    header = dashboard.browser(is_secure=True).get("/auth/openid").headers["set-cookie"].lower()
    assert header.startswith(f"{SECURE_STATE_COOKIE.lower()}=")
    assert "path=/;" in header
    assert "secure" in header
    assert "domain" not in header


def test_what_comes_unasked_is_neither_believed_nor_on_record(
    dashboard: Dashboard, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever it comes from: it must not look like lines of ours, nor fill the audit log."""
    forged = {"error": "x", "error_description": "y\n2026-01-01 INFO audit {}\x1b[31m" + "z" * 9_000}
    answer = dashboard.browser().get("/auth/openid/callback", params=forged)
    refused(answer, dashboard, OidcRefusal.NOT_BEGUN, on_record=False)
    assert "INFO audit" not in caplog.text
    begun = dashboard.browser()
    state = query_of(leave(begun))["state"]
    answer = begun.get("/auth/openid/callback", params={**forged, "state": state})
    refused(answer, dashboard, OidcRefusal.UNPROVEN)
    assert len(dashboard.records[0]["why"]) < 1_000
    assert "\nINFO" not in caplog.text
    assert "\x1b" not in caplog.text
    assert all(line.startswith("WARNING") for line in caplog.text.splitlines())


def test_a_key_that_the_provider_withdrew_is_not_believed_for_ever(
    provider: Provider, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = dashboard.browser()
    assert browser.get(provider.answer(leave(browser), "ann")).status_code == 200
    asked: list[str] = []
    request = httpx2.AsyncClient.request

    async def counting(self: httpx2.AsyncClient, method: str, url: str, **options: Any) -> httpx2.Response:
        asked.append(str(url))
        return await request(self, method, url, **options)

    monkeypatch.setattr(httpx2.AsyncClient, "request", counting)
    assert browser.get(provider.answer(leave(browser), "ann")).status_code == 200
    assert not [url for url in asked if "jwks" in url]
    monkeypatch.setattr("episodes_assets.dashboard.auth.oidc.METADATA_SECONDS", 0.0)
    assert browser.get(provider.answer(leave(browser), "ann")).status_code == 200
    assert [url for url in asked if "jwks" in url]


def test_a_provider_that_is_away(dashboard: Dashboard) -> None:
    dashboard.oidc = replace(dashboard.oidc, issuer="http://127.0.0.1:9")
    refused(dashboard.browser().get("/auth/openid"), dashboard, OidcRefusal.NO_ANSWER, on_record=False)


def test_a_provider_that_is_another(provider: Provider, dashboard: Dashboard) -> None:
    """By another name of the same machine, its discovery document names another issuer."""
    issuer = provider.issuer.replace("localhost", "127.0.0.1") + "/"
    dashboard.oidc = replace(dashboard.oidc, issuer=issuer)
    refused(dashboard.browser().get("/auth/openid"), dashboard, OidcRefusal.NO_ANSWER, on_record=False)


def test_a_wrong_secret(provider: Provider, dashboard: Dashboard) -> None:
    dashboard.oidc = replace(dashboard.oidc, client_secret=SecretStr("wrong"))
    browser = dashboard.browser()
    refused(browser.get(provider.answer(leave(browser), "ann")), dashboard, OidcRefusal.UNPROVEN)
