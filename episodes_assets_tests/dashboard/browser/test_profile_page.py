"""The flame graph in a real browser, under the strict Content-Security-Policy."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.auth.credentials import cookie_name
from episodes_assets.dashboard.profiles import profile_routes
from episodes_assets.ledger import profiles
from episodes_assets.ledger.profiles import Seen
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.profiling.engines import Sampling
from episodes_assets.profiling.stacks import Frame, Profile
from episodes_assets_tests.dashboard.served import THIS_USER, Dashboard, serving

MAIN = Frame("main", "dagster/main.py", 1)
PLAN = Frame("plan_jobs", "episodes_assets/planning/jobs.py", 40)
EVIL = Frame("<img src=x onerror=document.title='evil'>", "episodes_assets/days.py", 3)
PROFILE = Profile(100, {(MAIN, PLAN, EVIL): 25, (MAIN, PLAN): 50, (MAIN,): 25})


@pytest.mark.slow
def test_a_flame_graph_is_looked_at_closely(dashboard: Dashboard, person: Callable[[], Page]) -> None:
    dsn = dashboard.system.dsn(Purpose.QUEUE)
    with connect(dsn, autocommit=True) as queue:
        claim = profiles.begin_step(
            queue, "episode_jobs", Sampling(), run_id="r", requested_by="ana", reason="asked for", day=None,
            claimed_by="here-1",
        )  # fmt: skip
        assert claim is not None
        profiles.store(queue, claim, Seen("py-spy", PROFILE.pack(), PROFILE.samples))
    served = dashboard.again(pages=tuple(profile_routes(dsn, dashboard.system.settings.environment)))
    page = person()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    with serving(served.app, served.configuration) as port:
        address = f"http://127.0.0.1:{port}"
        cookie = {
            "name": cookie_name(is_secure=False),
            "value": served.session(Role.VIEWER, client=THIS_USER),
            "url": address,
        }
        page.context.add_cookies([cookie])  # type: ignore[list-item]
        page.goto(f"{address}/profiles/{claim.profile_id}")
        boxes = page.locator("#flame g")
        expect(boxes).to_have_count(3)
        expect(page.get_by_role("region", name="Hot lines")).to_contain_text(
            "episodes_assets/planning/jobs.py:40"
        )
        whole = boxes.first.locator("rect").get_attribute("width")
        plan = boxes.filter(has_text="plan_jobs").first
        plan.focus()
        expect(page.locator("#about-box")).to_have_text(f"{PLAN}: 0.75 s, 75.0%")
        plan.press("Enter")
        expect(plan.locator("rect")).to_have_attribute("width", "1199.5")
        evil = boxes.filter(has_text="onerror").first
        expect(evil.locator("text")).to_have_text(str(EVIL)[:57] + "…")
        plan.click()
        expect(plan.locator("rect")).to_have_attribute("width", "899.5")
        assert whole is not None
        assert float(whole) == 1199.5
        with page.expect_download() as download:
            page.get_by_role("link", name="Download for speedscope").click()
        assert download.value.suggested_filename == f"profile-{claim.profile_id}.speedscope.json"
        expect(page).to_have_title(f"Profile {claim.profile_id}")
    assert said == []
