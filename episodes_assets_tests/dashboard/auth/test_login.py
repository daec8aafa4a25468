"""Signing in and out: what it takes, what it gives away, and that its end is one."""

import threading
from dataclasses import replace
from urllib.parse import urlencode

import anyio
import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from episodes_assets.accounts import sessions, throttle, users
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.dashboard.app import create_application
from episodes_assets.dashboard.auth import login
from episodes_assets.dashboard.auth.login import OidcLogin, sign_in
from episodes_assets.dashboard.fleet import fleet_routes
from episodes_assets.errors import BadSetting
from episodes_assets_tests.dashboard.served import HOST, PASSWORD, SAME_ORIGIN, Dashboard


def form(name: str = "operator", password: str = PASSWORD, next_page: str = "/runs") -> dict[str, str]:
    return {"name": name, "password": password, "next": next_page}


def test_the_way_in_and_out(dashboard: Dashboard) -> None:
    browser = dashboard.client()
    sent_away = browser.get("/runs?a=1&b=2", headers={"Accept": "text/html"})
    assert sent_away.status_code == 303
    assert sent_away.headers["location"] == "/login?next=/runs%3Fa%3D1%26b%3D2"
    shown = browser.get(sent_away.headers["location"])
    assert 'value="/runs?a=1&amp;b=2"' in shown.text
    assert shown.headers["cache-control"] == "no-store"
    signed_in = browser.post("/login", data=form(next_page="/runs?a=1&b=2"))
    assert signed_in.status_code == 303
    assert signed_in.headers["location"] == "/runs?a=1&b=2"
    assert browser.get("/runs").status_code == 200
    assert browser.get("/login?next=/fleet").headers["location"] == "/fleet"
    cookie = browser.cookies["episodes_session"]
    left = browser.post("/logout")
    assert left.headers["location"] == "/login"
    assert browser.get("/runs").status_code == 401
    # Whoever kept the cookie has nothing.
    assert dashboard.client(token=cookie).get("/runs").status_code == 401
    assert [(who, outcome) for who, _, outcome in dashboard.events("login")][-1] == ("operator", "accepted")
    assert [(who, outcome) for who, _, outcome in dashboard.events("logout")][-1] == ("operator", "done")


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(dashboard: Dashboard) -> None:
    plain = dashboard.client().post("/login", data=form()).headers["set-cookie"]
    assert plain.startswith("episodes_session=")
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=43200"} <= set(plain.split("; "))
    assert "Secure" not in plain
    assert "Domain" not in plain
    over_tls = dashboard.again(trusted_proxies=("127.0.0.1",)).client().post("/login", data=form())
    secure = over_tls.headers["set-cookie"]
    assert secure.startswith("__Host-episodes_session=")
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(secure.split("; "))
    assert over_tls.headers["strict-transport-security"] == "max-age=31536000"


def test_only_the_cookie_itself_is_one(dashboard: Dashboard) -> None:
    token = dashboard.session(Role.VIEWER).encode()
    cookie = b"episodes_session=" + token

    def status(header: bytes) -> int:
        answer = dashboard.client().get("/runs", headers={b"Cookie": header})
        return int(answer.status_code)

    for header in (cookie, b"a=b; " + cookie, cookie + b" ;\ta", b"x" + cookie + b";" + cookie):
        assert status(header) == 200, header
    for header in (
        b"\xa0" + cookie, b"\x0b" + cookie, b"episodes_session\xa0=" + token, b"Episodes_session=" + token,
        b"episodes_session=x; " + cookie, cookie + b"; episodes_session=x", cookie + b"; " + cookie,
        b'episodes_session="' + token + b'"', b"episodes_session=", b"episodes_session",
    ):  # fmt: skip
        assert status(header) == 401, header


def test_a_session_given_to_somebody_before_they_sign_in_is_worth_nothing_after(dashboard: Dashboard) -> None:
    planted = "planted-by-an-attacker"
    browser = dashboard.client(token=planted)
    browser.post("/login", data=form())
    assert dashboard.client(token=planted).get("/runs").status_code == 401
    own = dashboard.session(Role.VIEWER)
    again = dashboard.client(token=own).post("/login", data=form())
    assert own not in again.headers["set-cookie"]
    assert dashboard.client(token=own).get("/runs").status_code == 401


def test_a_wrong_password_and_a_wrong_name_look_alike(dashboard: Dashboard) -> None:
    wrong = dashboard.client().post("/login", data=form("viewer", "no"))
    nobody = dashboard.client().post("/login", data=form("nobody", "no"))
    assert wrong.status_code == nobody.status_code == 401
    assert "Name or password is wrong." in wrong.text
    assert wrong.text.replace("viewer", "nobody") == nobody.text
    assert {key: value for key, value in wrong.headers.items() if key != "content-length"} == {
        key: value for key, value in nobody.headers.items() if key != "content-length"
    }
    recorded = [(who, outcome) for who, _, outcome in dashboard.events("login")][-2:]
    assert recorded == [("unproven:viewer", "refused"), ("unproven:an unknown name", "refused")]


@pytest.mark.parametrize("typed", ["correct horse battery staple", "cli:root", "unproven:viewer", "hunter2"])
def test_what_is_typed_in_place_of_a_name_is_kept_nowhere(
    dashboard: Dashboard, typed: str, caplog: pytest.LogCaptureFixture
) -> None:
    dashboard.system.query("dagster", "TRUNCATE dashboard.login_attempts")
    with caplog.at_level("INFO"):
        assert dashboard.client().post("/login", data=form(typed, "no")).status_code == 401
    assert dashboard.events("login")[-1][0] == "unproven:an unknown name"
    assert "unproven:an unknown name" in caplog.text
    assert typed not in caplog.text


def test_a_disabled_user_is_out_at_once(dashboard: Dashboard) -> None:
    dashboard.accounts(users.add_user, "leaver", Role.VIEWER, PASSWORD)
    browser = dashboard.client(token=dashboard.session(Role.VIEWER, "leaver"))
    assert browser.get("/runs").status_code == 200
    dashboard.accounts(users.disable_user, "leaver")
    assert browser.get("/runs").status_code == 401
    refused = browser.post("/login", data=form("leaver"))
    assert refused.status_code == 401
    assert "Name or password is wrong." in refused.text


def test_a_role_taken_away_is_gone_in_a_running_session(dashboard: Dashboard) -> None:
    dashboard.accounts(users.add_user, "changing", Role.OPERATOR, PASSWORD)
    browser = dashboard.client(token=dashboard.session(Role.OPERATOR, "changing"))
    assert "(operator)" in browser.get("/").text
    dashboard.accounts(users.set_role, "changing", Role.VIEWER)
    assert "(viewer)" in browser.get("/").text


@pytest.mark.parametrize("column", ["started_at", "seen_at"])
def test_sessions_end_by_themselves(dashboard: Dashboard, column: str) -> None:
    token = dashboard.session(Role.VIEWER)
    limit = {"started_at": "12 hours", "seen_at": "60 minutes"}[column]
    for ago, status in ((f"{limit} - '1 minute'::interval", 200), (limit, 401)):
        ago = ago.replace(limit, f"'{limit}'::interval")
        dashboard.system.query(
            "dagster",
            f"UPDATE dashboard.sessions SET {column} = now() - ({ago}) WHERE token_hash = sha256(%s::bytea)",
            [token.encode()],
        )
        assert dashboard.client(token=token).get("/runs").status_code == status


def test_a_page_that_reloads_itself_is_no_use_of_a_session(dashboard: Dashboard) -> None:
    queue_dsn, environment = dashboard.site.queue_dsn, dashboard.system.settings.environment
    served = dashboard.again(pages=tuple(fleet_routes(queue_dsn, environment)))
    token = dashboard.session(Role.VIEWER)
    mine = [token.encode()]
    dashboard.system.query(
        "dagster",
        "UPDATE dashboard.sessions SET seen_at = now() - interval '30 minutes'"
        " WHERE token_hash = sha256(%s::bytea)",
        mine,
    )

    def is_long_unused() -> bool:
        ((found,),) = dashboard.system.query(
            "dagster",
            "SELECT seen_at < now() - interval '29 minutes' FROM dashboard.sessions"
            " WHERE token_hash = sha256(%s::bytea)",
            mine,
        )
        return bool(found)

    assert served.client(token=token).get("/fleet/live").status_code == 200
    assert is_long_unused()
    assert served.client(token=token).get("/fleet").status_code == 200
    assert not is_long_unused()


def test_guessing_is_slowed_down_and_says_so(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than the guesses take.
    monkeypatch.setattr(throttle, "OF_A_NAME", replace(throttle.OF_A_NAME, first_seconds=60))
    browser = dashboard.client()
    answers = [browser.post("/login", data=form("guessed", "no")) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 900
    assert "Too many attempts. Try again in" in answers[-1].text
    assert [outcome for _, _, outcome in dashboard.events("login")][-6:] == ["refused"] * 5 + ["too soon"]


def test_a_wait_is_on_record_once_however_often_somebody_tries(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = iter([30.0, 29.9, 29.8, 90.0, 29.7])
    monkeypatch.setattr(throttle, "begin_attempt", lambda *_: next(wait))
    served = dashboard.again()
    before, recorded = len(dashboard.events("login")), []
    for number in range(5):
        assert served.client().post("/login", data=form(f"impatient-{number}")).status_code == 429
        recorded.append(len(dashboard.events("login")) - before)
    assert recorded == [1, 1, 1, 2, 2]


def test_logins_queue_only_so_far(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """While two are looked at and two wait, a fifth is sent away; the four are served."""
    monkeypatch.setattr(login, "_MOST_WAITING", 2)
    done = threading.Event()

    def look(*_: object) -> float:
        assert done.wait(30)
        return 0.0

    monkeypatch.setattr(login, "_try", look)
    served = dashboard.again()

    async def attempt(client: httpx2.AsyncClient, answers: list[int]) -> None:
        answers.append((await client.post("/login", data=form("queued"))).status_code)

    async def all_at_once() -> list[int]:
        answers: list[int] = []
        transport = httpx2.ASGITransport(served.app)
        async with (
            httpx2.AsyncClient(transport=transport, base_url=f"http://{HOST}", headers=SAME_ORIGIN) as client,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(6):
                tasks.start_soon(attempt, client, answers)
            with anyio.fail_after(30):
                while len(answers) < 2:
                    await anyio.sleep(0.01)
            assert answers == [503, 503]
            done.set()
        return answers

    assert sorted(anyio.run(all_at_once)) == [401] * 4 + [503] * 2


def test_nobody_takes_the_places_of_all_others(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def look(*_: object) -> float:
        assert done.wait(30)
        return 0.0

    def noting(address: str) -> str:
        asked.append(address)
        return address

    asked: list[str] = []
    monkeypatch.setattr(login, "_try", look)
    monkeypatch.setattr(throttle, "network_of", noting)
    served = dashboard.again()
    answers: dict[str, list[int]] = {"203.0.113.1": [], "203.0.113.2": []}

    async def attempt(address: str) -> None:
        transport = httpx2.ASGITransport(served.app, client=(address, 1))
        async with httpx2.AsyncClient(
            transport=transport, base_url=f"http://{HOST}", headers=SAME_ORIGIN
        ) as client:
            answers[address].append((await client.post("/login", data=form("queued"))).status_code)

    async def all_at_once() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(attempt, "203.0.113.1")
            with anyio.fail_after(30):
                while len(answers["203.0.113.1"]) < 25:
                    await anyio.sleep(0.01)
                tasks.start_soon(attempt, "203.0.113.2")
                while "203.0.113.2" not in asked:  # then it is in the queue, or sent away
                    await anyio.sleep(0.01)
            done.set()

    anyio.run(all_at_once)
    assert answers == {"203.0.113.1": [503] * 25 + [401] * 5, "203.0.113.2": [401]}


def test_a_login_sent_from_another_site_is_refused(dashboard: Dashboard) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert dashboard.client().post("/login", data=form(), headers=headers).status_code == 403


def test_passwords_can_be_off(dashboard: Dashboard) -> None:
    without = dashboard.again
    with pytest.raises(BadSetting, match="nobody could sign in"):
        without(password_login=False)
    site = replace(dashboard.site, configuration=replace(dashboard.configuration, password_login=False))
    oidc = OidcLogin("Somewhere", "/auth/login", [])
    other = replace(dashboard, site=site, app=create_application(site, dashboard.ui, oidc=oidc))
    shown = other.client().get("/login?next=/fleet").text
    assert 'type="password"' not in shown
    assert 'href="/auth/login?next=/fleet">Sign in with Somewhere' in shown
    assert other.client().post("/login", data=form()).status_code == 403


def test_a_token_instead_of_a_cookie(dashboard: Dashboard) -> None:
    token = dashboard.accounts(sessions.create_token, "script", Role.VIEWER, None)
    script = dashboard.client()
    bearer = {"Authorization": f"Bearer {token}"}
    assert script.get("/runs", headers=bearer).status_code == 200
    # A browser's cookie does not help a wrong token.
    signed_in = dashboard.client(Role.OPERATOR)
    for wrong in ("Bearer episodes_no", f"Basic {token}", "Bearer ", token):
        refused = signed_in.get("/runs", headers={"Authorization": wrong})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
    dashboard.accounts(sessions.revoke_token, "script")
    assert script.get("/runs", headers=bearer).status_code == 401


def test_read_only_is_so_for_operators_too(dashboard: Dashboard) -> None:
    looking = dashboard.again(is_read_only=True).client(Role.OPERATOR)
    assert "(viewer)" in looking.get("/").text
    assert looking.post("/report_asset_materialization/x", headers=SAME_ORIGIN).status_code == 403


def test_sign_in_serves_every_method(dashboard: Dashboard) -> None:
    async def proven(request: Request) -> Response:
        who = Identity("somebody@example.org", Role.VIEWER, AuthMethod.OIDC)
        return await sign_in(request, who, request.query_params["next"])

    served = dashboard.again(pages=(Route("/proven", proven),))
    answer = served.client(Role.VIEWER).get("/proven?next=//evil.example")
    assert answer.headers["location"] == "/"
    token = answer.headers["set-cookie"].split("=")[1].split(";")[0]
    found = dashboard.accounts(sessions.find_session, token, dashboard.configuration.lifetimes)
    assert found == Identity("somebody@example.org", Role.VIEWER, AuthMethod.OIDC)


@pytest.mark.parametrize(
    "name", ["", "\0", "x" * 5_000, "\ud800".encode("utf-8", "surrogatepass"), "ОПЕРАТОР"]
)
def test_whatever_is_typed_is_a_wrong_name(dashboard: Dashboard, name: str | bytes) -> None:
    dashboard.system.query("dagster", "TRUNCATE dashboard.login_attempts")  # of other tests with no name
    content = urlencode({"name": name, "password": "\0", "next": "/"})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert dashboard.client().post("/login", content=content, headers=headers).status_code == 401
    assert dashboard.client().post("/login", content=b"\xff=%zz", headers=headers).status_code in (401, 429)
    assert dashboard.client().post("/login", json={"name": "operator"}).status_code in (401, 429)
