"""Signing in through a real OpenID Connect provider, and every case of it that must fail."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.testclient import TestClient

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.dashboard.auth import oidc
from episodes_assets.dashboard.auth.credentials import cookie_name
from episodes_assets.dashboard.auth.login import OidcRefusal, sentence_of
from episodes_assets.dashboard.auth.oidc import (
    SECURE_STATE_COOKIE,
    STATE_COOKIE,
    STATE_SECONDS,
    oidc_login,
)
from episodes_assets.dashboard.configuration import OidcAccess, OidcProvider
from episodes_assets_tests.dashboard.oidc_provider.running import Provider, query_of, running_provider
from episodes_assets_tests.dashboard.served import Dashboard

pytestmark = pytest.mark.process

HOST = "http://127.0.0.1"
RETURN = f"{HOST}/auth/openid/callback"
ACCESS = OidcAccess(viewers=frozenset({"*@example.com"}), operators=frozenset({"ann@example.com"}))


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with running_provider(tmp_path_factory.mktemp("provider"), RETURN) as running:
        yield running


@dataclass
class SignIns:
    """The pages below /auth on real accounts, and what came of each sign-in.

    Attributes:
        served: The dashboard whose accounts they are.
        oidc: The provider.
        began: How many events of logins there were before.
        key: What the cookie in between is signed with.
    """

    served: Dashboard
    oidc: OidcProvider
    began: int
    key: str = "a key of the test"

    def browser(self, *, is_secure: bool = False) -> TestClient:
        login = oidc_login(self.oidc, signing_key=self.key, is_secure=is_secure)
        app = Starlette(routes=login.routes)
        app.state.site = self.served.site
        return TestClient(app, base_url=HOST, follow_redirects=False)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The events since then."""
        events = self.served.events("login")[self.began :]
        return [{"who": who, "outcome": outcome, **detail} for who, detail, outcome in events]

    def signed_in(self, browser: TestClient) -> Identity | None:
        """Who the session is of that a browser was given."""
        configuration = self.served.configuration
        token = browser.cookies[cookie_name(is_secure=configuration.is_secure)]
        return self.served.accounts(sessions.find_session, token, configuration.lifetimes, client="")


@pytest.fixture
def sign_ins(provider: Provider, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> SignIns:
    monkeypatch.setattr(oidc, "ANSWER_SECONDS", 120.0)  # the provider's process may be a slow one
    secret = SecretStr(provider.clients["dashboard"])
    return SignIns(
        dashboard,
        OidcProvider(provider.issuer, "Example", "dashboard", secret, ACCESS),
        len(dashboard.events("login")),
    )


def leave(browser: TestClient, wanted: str = "/runs") -> str:
    """Where the dashboard sends a browser to sign in."""
    answer = browser.get("/auth/openid", params={"next": wanted})
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


def refused(answer: httpx2.Response, sign_ins: SignIns, why: OidcRefusal, *, on_record: bool = True) -> None:
    """Insist that a sign-in ended on the login page, with a sentence, and in the audit log if it was one."""
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith("/login?")
    assert query_of(answer.headers["location"])["refused"] == why, sign_ins.records
    assert sentence_of(why)
    assert [record["outcome"] for record in sign_ins.records] == ["refused"] * on_record


@pytest.mark.parametrize(
    ("person", "name", "role"),
    [
        ("ann", "ann@example.com", "operator"),
        ("bob", "bob@example.com", "viewer"),
        ("quiet", "ann@example.com", "operator"),
    ],
)
def test_somebody_who_is_let_in(
    provider: Provider, sign_ins: SignIns, person: str, name: str, role: str
) -> None:
    browser = sign_ins.browser()
    there = leave(browser, "/runs?q=1&view=2")
    asked = query_of(there)
    assert there.startswith(f"{provider.issuer}/authorize/")
    assert asked["code_challenge_method"] == "S256"
    assert {"state", "nonce", "code_challenge"} <= set(asked)
    answer = browser.get(provider.answer(there, person))
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?q=1&view=2")
    assert sign_ins.signed_in(browser) == Identity(name, Role(role), AuthMethod.OIDC)
    assert STATE_COOKIE not in browser.cookies
    assert sign_ins.records == [{"who": name, "outcome": "accepted"}]


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
def test_somebody_who_is_not(provider: Provider, sign_ins: SignIns, person: str, why: OidcRefusal) -> None:
    browser = sign_ins.browser()
    answer = browser.get(provider.answer(leave(browser), person))
    refused(answer, sign_ins, why)
    assert query_of(answer.headers["location"])["next"] == "/runs"


def test_somebody_who_changes_their_mind(provider: Provider, sign_ins: SignIns) -> None:
    browser = sign_ins.browser()
    answer = browser.get(provider.answer(leave(browser), "ann", agree=False))
    refused(answer, sign_ins, OidcRefusal.CANCELLED)


def test_a_token_signed_with_the_clients_secret_proves_nothing(provider: Provider, sign_ins: SignIns) -> None:
    secret = SecretStr(provider.clients["symmetric"])
    sign_ins.oidc = replace(sign_ins.oidc, client_id="symmetric", client_secret=secret)
    browser = sign_ins.browser()
    refused(browser.get(provider.answer(leave(browser), "ann")), sign_ins, OidcRefusal.UNPROVEN)


def test_a_changed_state(provider: Provider, sign_ins: SignIns) -> None:
    browser = sign_ins.browser()
    back = httpx2.URL(provider.answer(leave(browser), "ann")).copy_set_param("state", "another")
    refused(browser.get(str(back)), sign_ins, OidcRefusal.NOT_BEGUN, on_record=False)


def test_a_sign_in_that_another_browser_began(provider: Provider, sign_ins: SignIns) -> None:
    """So that nobody is made to sign in as somebody else."""
    back = provider.answer(leave(sign_ins.browser()), "ann")
    refused(sign_ins.browser().get(back), sign_ins, OidcRefusal.NOT_BEGUN, on_record=False)


def test_a_cookie_that_we_did_not_sign(provider: Provider, sign_ins: SignIns) -> None:
    forger = replace(sign_ins, key="another key").browser()
    back = provider.answer(leave(forger), "ann")
    browser = sign_ins.browser()
    browser.cookies.update(forger.cookies)
    refused(browser.get(back), sign_ins, OidcRefusal.NOT_BEGUN, on_record=False)


def test_a_sign_in_that_was_begun_long_ago(
    provider: Provider, sign_ins: SignIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = sign_ins.browser()
    back = provider.answer(leave(browser), "ann")
    cookie = browser.cookies[STATE_COOKIE]
    from itsdangerous import TimestampSigner

    now = TimestampSigner.get_timestamp
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: now(self) + STATE_SECONDS + 1)
    answer = browser.get(back, headers={"Cookie": f"{STATE_COOKIE}={cookie}"})
    refused(answer, sign_ins, OidcRefusal.NOT_BEGUN, on_record=False)


def test_a_code_that_was_used_before(provider: Provider, sign_ins: SignIns) -> None:
    """Even by somebody who kept the cookie that went with it."""
    browser = sign_ins.browser()
    back = provider.answer(leave(browser), "ann")
    kept = browser.cookies[STATE_COOKIE]
    assert browser.get(back).status_code == 303
    sign_ins.began += 1
    refused(browser.get(back), sign_ins, OidcRefusal.NOT_BEGUN, on_record=False)
    answer = sign_ins.browser().get(back, headers={"Cookie": f"{STATE_COOKIE}={kept}"})
    refused(answer, sign_ins, OidcRefusal.UNPROVEN)


def test_a_code_that_was_given_to_another_client(provider: Provider, sign_ins: SignIns) -> None:
    another = httpx2.URL(leave(sign_ins.browser())).copy_set_param("client_id", "another")
    code = query_of(provider.answer(str(another), "ann"))["code"]
    browser = sign_ins.browser()
    state = query_of(leave(browser))["state"]
    answer = browser.get("/auth/openid/callback", params={"code": code, "state": state})
    refused(answer, sign_ins, OidcRefusal.UNPROVEN)


def test_a_code_that_another_browsers_sign_in_was_given(provider: Provider, sign_ins: SignIns) -> None:
    """A stolen code is worth nothing without the verifier in the cookie of who began it."""
    stolen = query_of(provider.answer(leave(sign_ins.browser()), "ann"))["code"]
    thief = sign_ins.browser()
    state = query_of(leave(thief))["state"]
    answer = thief.get("/auth/openid/callback", params={"code": stolen, "state": state})
    refused(answer, sign_ins, OidcRefusal.UNPROVEN)


def test_the_provider_insists_on_the_verifier(provider: Provider, sign_ins: SignIns) -> None:
    """Or the test before this one would show nothing."""
    code = query_of(provider.answer(leave(sign_ins.browser()), "ann"))["code"]
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
def test_the_page_after_it_is_one_of_ours(provider: Provider, sign_ins: SignIns, wanted: str) -> None:
    browser = sign_ins.browser()
    answer = browser.get(provider.answer(leave(browser, wanted), "ann"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_the_cookie_in_between(sign_ins: SignIns) -> None:
    header = sign_ins.browser().get("/auth/openid").headers["set-cookie"].lower()
    assert header.startswith(f"{STATE_COOKIE}=")
    for attribute in ("path=/auth;", f"max-age={STATE_SECONDS};", "httponly", "samesite=lax"):
        assert attribute in header
    assert "secure" not in header


def test_the_cookie_in_between_over_tls_is_from_us_alone(sign_ins: SignIns) -> None:
    header = sign_ins.browser(is_secure=True).get("/auth/openid").headers["set-cookie"].lower()
    assert header.startswith(f"{SECURE_STATE_COOKIE.lower()}=")
    assert "path=/;" in header
    assert "secure" in header
    assert "domain" not in header


def test_what_comes_unasked_is_neither_believed_nor_on_record(
    sign_ins: SignIns, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever it comes from: it must not look like lines of ours, nor fill the audit log."""
    forged = {"error": "x", "error_description": "y\n2026-01-01 INFO audit {}\x1b[31m" + "z" * 9_000}
    answer = sign_ins.browser().get("/auth/openid/callback", params=forged)
    refused(answer, sign_ins, OidcRefusal.NOT_BEGUN, on_record=False)
    assert "INFO audit" not in caplog.text
    caplog.clear()
    begun = sign_ins.browser()
    state = query_of(leave(begun))["state"]
    answer = begun.get("/auth/openid/callback", params={**forged, "state": state})
    refused(answer, sign_ins, OidcRefusal.UNPROVEN)
    why = sign_ins.records[0]["why"]
    assert len(why) < 1_000
    assert re.search(r"z… \(9,\d\d\d characters, SHA-256 [0-9a-f]{64}\)$", why)
    ours = [record for record in caplog.records if record.name.startswith("episodes")]
    assert ours
    assert not [record for record in ours if re.search(r"[\n\x1b]", record.getMessage())]


def test_a_key_that_the_provider_withdrew_is_not_believed_for_ever(
    provider: Provider, sign_ins: SignIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = sign_ins.browser()
    assert browser.get(provider.answer(leave(browser), "ann")).status_code == 303
    asked: list[str] = []
    request = httpx2.AsyncClient.request

    async def counting(self: httpx2.AsyncClient, method: str, url: str, **options: Any) -> httpx2.Response:
        asked.append(str(url))
        return await request(self, method, url, **options)

    monkeypatch.setattr(httpx2.AsyncClient, "request", counting)
    assert browser.get(provider.answer(leave(browser), "ann")).status_code == 303
    assert not [url for url in asked if "jwks" in url]
    monkeypatch.setattr("episodes_assets.dashboard.auth.oidc.METADATA_SECONDS", 0.0)
    assert browser.get(provider.answer(leave(browser), "ann")).status_code == 303
    assert [url for url in asked if "jwks" in url]


def test_a_provider_that_is_away(sign_ins: SignIns) -> None:
    sign_ins.oidc = replace(sign_ins.oidc, issuer="http://127.0.0.1:9")
    refused(sign_ins.browser().get("/auth/openid"), sign_ins, OidcRefusal.NO_ANSWER, on_record=False)


def test_a_provider_that_is_another(provider: Provider, sign_ins: SignIns) -> None:
    """By another name of the same machine, its discovery document names another issuer."""
    issuer = provider.issuer.replace("localhost", "127.0.0.1") + "/"
    sign_ins.oidc = replace(sign_ins.oidc, issuer=issuer)
    refused(sign_ins.browser().get("/auth/openid"), sign_ins, OidcRefusal.NO_ANSWER, on_record=False)


def test_a_wrong_secret(provider: Provider, sign_ins: SignIns) -> None:
    sign_ins.oidc = replace(sign_ins.oidc, client_secret=SecretStr("wrong"))
    browser = sign_ins.browser()
    refused(browser.get(provider.answer(leave(browser), "ann")), sign_ins, OidcRefusal.UNPROVEN)
