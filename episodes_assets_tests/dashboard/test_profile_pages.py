"""The pages Profiles: what they show to whom, whatever functions are called, and who may ask for more."""

from collections.abc import Iterator

import pytest

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.fleet import fleet_routes
from episodes_assets.dashboard.middleware import STRICT_POLICY
from episodes_assets.dashboard.profiles import profile_routes
from episodes_assets.ledger import profiles
from episodes_assets.ledger.profiles import Claim, Seen
from episodes_assets.ledger.workers import Activity, WorkerName, send_heartbeat
from episodes_assets.postgres.connect import AsyncConnection, Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.profiling.engines import Sampling
from episodes_assets.profiling.stacks import Frame, Profile, frame
from episodes_assets_tests.dashboard.served import HOST, Dashboard
from episodes_assets_tests.support.html import Element, breaks_the_policy, read
from episodes_assets_tests.support.system import day
from episodes_assets_tests.support.workers import run_async

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
HOT = frame(EVIL, f"/lib/episodes_assets/{EVIL}.py", 7, ["/lib"])
MAIN = Frame("main", "dagster/main.py", 1)
PROFILE = Profile(100, {(MAIN, HOT): 90, (MAIN,): 10})


@pytest.fixture(scope="module")
def served(dashboard: Dashboard) -> Dashboard:
    queue_dsn, environment = dashboard.system.dsn(Purpose.QUEUE), dashboard.system.settings.environment
    return dashboard.again(
        pages=(*profile_routes(queue_dsn, environment), *fleet_routes(queue_dsn, environment))
    )


@pytest.fixture
def queue(served: Dashboard) -> Iterator[Connection]:
    with connect(served.system.dsn(Purpose.QUEUE), autocommit=True) as opened:
        opened.execute("DELETE FROM ledger.profiles")
        yield opened


def taken(queue: Connection, profile: Profile | None = PROFILE, problem: str = "") -> int:
    claim = begun(queue)
    seen = Seen(problem=problem) if profile is None else Seen("py-spy", profile.pack(), profile.samples)
    assert profiles.store(queue, claim, seen)
    return claim.profile_id


def begun(queue: Connection) -> Claim:
    claim = profiles.begin_step(
        queue, EVIL, Sampling(), run_id=EVIL, requested_by=EVIL, reason=EVIL, day=day(1), claimed_by=EVIL
    )
    assert claim is not None
    return claim


def get(served: Dashboard, path: str, role: Role = Role.VIEWER, status: int = 200) -> Element:
    answer = served.client(role).get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-security-policy"] == STRICT_POLICY
    assert answer.headers["cache-control"] == "no-store"
    page = read(answer.text)
    assert breaks_the_policy(page) == []
    scripts = {each.attributes.get("src") for each in page.all("script")}
    assert scripts <= {"/dashboard/static/profile.js", "/dashboard/static/fleet.js"}
    assert page.all("img") == []
    return page


def test_a_profile_is_shown_and_taken_along_by_whoever_is_signed_in(
    served: Dashboard, queue: Connection
) -> None:
    number = taken(queue)
    page = get(served, "/profiles")
    assert page.all("a", href=f"/profiles/{number}")
    assert f"step {EVIL} of 2018-03-01" in page.text
    page = get(served, f"/profiles/{number}")
    first, second = page.one("tbody").all("tr")
    assert [each.text for each in first.all("td")][:2] == ["90.0 %", "0.90"]
    assert "episodes_assets/" in first.text
    assert "dagster/main.py:1" in second.text
    boxes = page.one("svg").all("g")
    assert [each.attributes["data-samples"] for each in boxes] == ["100", "90"]
    assert "0.90 s, 90.0%" in boxes[1].one("title").text
    answer = served.client(Role.VIEWER).get(f"/profiles/{number}/speedscope.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == f'attachment; filename="profile-{number}.speedscope.json"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["profiles"][0]["weights"] == [0.1, 0.9]


def test_profiles_without_anything_to_see_say_why(served: Dashboard, queue: Connection) -> None:
    assert "Nothing has been profiled." in get(served, "/profiles").text
    waiting, expired = begun(queue).profile_id, begun(queue).profile_id
    queue.execute(
        "UPDATE ledger.profiles SET claimed_at = now() - interval '1 hour', expires_at = now()"
        " WHERE profile_id = %s",
        [expired],
    )
    failed = taken(queue, None, f"refused {EVIL}")
    idle = taken(queue, Profile(100, {}))
    assert "It is being taken." in get(served, f"/profiles/{waiting}").text
    assert "It was never taken." in get(served, f"/profiles/{expired}").text
    assert f"Nothing was seen: refused {EVIL}." in get(served, f"/profiles/{failed}").text
    assert "only waited for something to do" in get(served, f"/profiles/{idle}").text
    for path in (f"/profiles/{failed}/speedscope.json", f"/profiles/{waiting}/speedscope.json"):
        assert "holds nothing" in get(served, path, status=404).text
    for number in ("0", "99999", "x", "-1", "1e3", "9" * 30, "٣"):
        page = get(served, f"/profiles/{number}", status=404)
        assert page.one("p", role="alert")


def test_operators_ask_for_profiles_and_that_is_recorded(served: Dashboard, queue: Connection) -> None:
    name = WorkerName("here", 7, "1.2")

    async def live(connection: AsyncConnection) -> None:
        await send_heartbeat(connection, name, Activity())

    run_async(served.system, live)
    posts = ("/profiles/batches", "/profiles/workers/here-7")
    for role, count in ((Role.OPERATOR, 1), (Role.VIEWER, 0)):
        page = get(served, "/fleet", role)
        for path in posts:
            assert len(page.all("form", method="post", action=path)) == count
    viewer, operator = served.client(Role.VIEWER), served.client(Role.OPERATOR)
    for path in posts:
        assert viewer.post(path).status_code == 403
        assert operator.post(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert profiles.read_profiles(queue, 9) == []
    assert operator.post(posts[0]).headers["location"] == "/profiles"
    rows = profiles.read_profiles(queue, 9)
    assert [(row.kind, row.state, row.requested_by) for row in rows] == [("batch", "waits", "operator")] * 3
    newest = operator.post(posts[1]).headers["location"]
    row = profiles.read_profiles(queue, 1)[0]
    assert (newest, row.kind, row.subject) == (f"/profiles/{row.profile_id}", "worker", "here-7")
    recorded = [(who, detail["path"]) for who, detail, _ in served.events("request")]
    assert [each for each in recorded if each[1] in posts] == [
        ("operator", path) for path in posts for _ in ("begun", "ended")
    ]
    for path in ("/profiles/workers/nobody", "/profiles/workers/%3Cscript%3E"):
        refused = operator.post(path)
        assert refused.status_code == 409
        assert "no worker that lives is called" in refused.text
        assert "<script>" not in refused.text
    for _ in range(12):
        operator.post(posts[0])
    assert operator.post(posts[0]).status_code == 409
    assert served.client().get("/profiles", headers={"Host": HOST}).status_code == 401
