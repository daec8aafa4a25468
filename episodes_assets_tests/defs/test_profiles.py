"""Steps are profiled where their run asks for it and where they are slow, and none fails for a profile."""

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from episodes_assets.definitions import defs
from episodes_assets.defs import profiles as step_profiles
from episodes_assets.defs.assets import tracked_episodes
from episodes_assets.defs.profiles import BY_ITSELF, PROFILE_TAG, Duration, slow_after
from episodes_assets.errors import ProfilerUnavailable
from episodes_assets.ledger import profiles
from episodes_assets.ledger.profiles import ProfileRow, State
from episodes_assets.planning.jobs import newly_tracked_of_day
from episodes_assets.postgres.connect import Connection
from episodes_assets.profiling.engines import Engine
from episodes_assets.profiling.stacks import Profile
from episodes_assets_tests.support.invoke import output
from episodes_assets_tests.support.runs import QUIET
from episodes_assets_tests.support.slow import is_slow, line_of
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process

TRACKING = ("input_episodes", "input_viewings", "tracked_episodes")


def run(
    assets: tuple[str, ...] = TRACKING, tags: Mapping[str, str] | None = None, job: str = ""
) -> dg.ExecuteInProcessResult:
    found = defs.resolve_job_def(job) if job else defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        result = found.execute_in_process(
            instance=instance,
            partition_key=str(day(1)),
            asset_selection=None if job else [dg.AssetKey(each) for each in assets],
            run_config=QUIET,
            tags=dict(tags or {}),
            raise_on_error=False,
        )
    assert result.success, failure(result)
    return result


def metadata_of(asset: str) -> Mapping[str, dg.MetadataValue[Any]]:
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.metadata


def rows_by_step(queue: Connection) -> dict[str | None, ProfileRow]:
    return {row.subject: row for row in profiles.read_profiles(queue, 100)}


@pytest.mark.slow
def test_a_run_from_the_command_line_shows_where_its_time_went(system: System, queue: Connection) -> None:
    system.generate(day(1), day(1))
    with system.workers():
        output("run", str(day(1)), "--workers", "0")
        before = system.published()
        shown, _ = output("run", str(day(1)), "--workers", "0", "--rework", "--profile")
    assert system.published().equals(before)
    rows = profiles.read_profiles_of_run(queue, profiles.read_profiles(queue, 1)[0].run_id or "")
    steps = [row.subject for row in rows if row.kind == "step"]
    assert steps == ["input_episodes", "tracked_episodes", "episode_jobs", "published_results"]
    assert {(row.state, row.problem) for row in rows} == {(State.DONE, None)}
    assert any(row.kind == "batch" for row in rows)
    for row in rows:
        assert f"profile {row.profile_id}, {row.title}: " in shown
    # Nothing is left waiting that the run had asked for.
    assert system.query("queue", "SELECT count(*) FROM ledger.profiles WHERE finished_at IS NULL") == [(0,)]
    for name, asset in (("input_episodes", "input_viewings"), ("episode_jobs", "episode_jobs")):
        metadata = metadata_of(asset)
        number = rows_by_step(queue)[name].profile_id
        assert metadata["profile"] == dg.MetadataValue.url(f"/profiles/{number}")
        assert isinstance(metadata["hot lines"], dg.TableMetadataValue)
        assert "dagster/row_count" in metadata
    assert "profiles of the fleet" in metadata_of("job_outcomes")
    assert "seconds" in metadata_of("job_outcomes")


@pytest.mark.slow
def test_the_launchpad_has_a_job_for_it(
    system: System, queue: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.generate(day(1), day(1))
    with system.workers():
        monkeypatch.setattr(tracked_episodes, "newly_tracked_of_day", slowly)
        result = run(job="profile_day")
    row = rows_by_step(queue)["tracked_episodes"]
    assert (row.reason, row.run_id, row.day) == ("", result.run_id, day(1))
    assert row.requested_by.startswith("os user ")
    shown = metadata_of("tracked_episodes")
    assert isinstance(shown["hot lines"], dg.TableMetadataValue)
    hottest = shown["hot lines"].records[0].data
    assert hottest["line"] == f"episodes_assets_tests/support/slow.py:{line_of('the slow line')}"
    picture = str(shown["flame graph"].value)
    svg = base64.b64decode(picture.partition("base64,")[2].rstrip(")")).decode()
    assert "support/slow.py:" in svg
    assert len(picture) < 200_000


def slowly(*arguments: Any) -> Any:
    is_slow(0.5)
    return newly_tracked_of_day(*arguments)


def test_what_is_slow() -> None:
    usual = [Duration(20, 1), Duration(900, 30), Duration(40, 1)]
    assert slow_after(usual, 1, 5) == 150
    assert slow_after(usual, 2, 5) == 300
    assert slow_after(usual, 1, 0) is None
    assert slow_after(usual[:2], 1, 5) is None  # too few to say what is usual
    assert slow_after([Duration(0.1, 1)] * 15, 1, 5) == step_profiles.FLOOR_SECONDS
    assert slow_after([Duration(0.1, 0)] * 15, 1, 5) == step_profiles.FLOOR_SECONDS


@pytest.mark.slow
def test_a_step_that_is_slow_profiles_itself_once_in_an_hour(
    system: System, queue: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_profiles, "FLOOR_SECONDS", 0.05)
    monkeypatch.setattr(step_profiles, "LEAST_RUNS", 1)
    monkeypatch.setenv("EPISODES_SLOW_STEP_FACTOR", "0.000001")
    system.generate(day(1), day(1))
    run()  # nothing is usual yet
    assert rows_by_step(queue) == {}
    monkeypatch.setattr(tracked_episodes, "newly_tracked_of_day", slowly)
    run(TRACKING[-1:])
    ((number, row),) = ((row.profile_id, row) for row in profiles.read_profiles(queue, 100))
    assert (row.subject, row.requested_by, row.state) == ("tracked_episodes", BY_ITSELF, State.DONE)
    assert row.reason == "it takes more than 0 s, and more than 1e-06 times what is usual"
    _, profile = profiles.read_profile(queue, number)
    assert profile is not None
    assert profile.hot_lines(1)[0].frame.line == line_of("the slow line")
    assert metadata_of("tracked_episodes")["profile"] == dg.MetadataValue.url(f"/profiles/{number}")
    run(TRACKING[-1:])
    assert len(profiles.read_profiles(queue, 100)) == 1
    monkeypatch.setenv("EPISODES_SLOW_STEP_FACTOR", "0")
    system.query("queue", "DELETE FROM ledger.profiles")
    run(TRACKING[-1:])
    assert profiles.read_profiles(queue, 100) == []


class Killed:
    """A profile whose engine is killed before its end."""

    engine = Engine.PY_SPY

    def stop(self) -> Profile:
        raise ProfilerUnavailable("py-spy was killed", "take another profile")


@pytest.mark.long
def test_a_profile_that_comes_to_nothing_says_why(
    system: System, queue: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.generate(day(1), day(1))
    monkeypatch.setattr(step_profiles, "record_self", lambda *_: Killed())
    run(TRACKING[:2], tags={PROFILE_TAG: "x"})
    (row,) = profiles.read_profiles(queue, 9)
    assert (row.state, row.problem) == (State.FAILED, "py-spy was killed: take another profile")
    assert "profile" not in metadata_of("input_episodes")


@pytest.mark.long
def test_no_step_fails_for_a_profile(system: System, queue: Connection) -> None:
    system.generate(day(1), day(1))
    system.query("queue", "ALTER TABLE ledger.profiles RENAME TO profiles_of_before")
    result = run(tags={PROFILE_TAG: "x"})
    with dg.DagsterInstance.get() as instance:
        events = instance.all_logs(result.run_id)
    said = [each.user_message for each in events if "no profile of the step" in each.user_message]
    assert len(said) == 2
    assert "profile" not in metadata_of("tracked_episodes")
