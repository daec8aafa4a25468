"""The connections that Dagster's storage keeps, and which of its events it keeps."""

import datetime as dt

import dagster as dg
import pytest

from episodes_assets.defs.storage import prune_run_events
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.system import System

SESSIONS = """
    SELECT pid, backend_start FROM pg_stat_activity
    WHERE usename = 'episodes_dagster' AND datname = current_database() ORDER BY 1
"""


@dg.asset
def reported() -> None:
    """Anything."""


def test_runs_and_all_their_events_use_two_connections(system: System) -> None:
    with dg.DagsterInstance.get() as instance:
        dg.materialize([reported], instance=instance)
        kept = system.query("dagster", SESSIONS)
        assert len(kept) == 2
        run = dg.materialize([reported], instance=instance)
        assert len(instance.all_logs(run.run_id)) > 5
        assert system.query("dagster", SESSIONS) == kept
    eventually(lambda: system.query("dagster", SESSIONS) == [])


def test_connections_that_the_server_has_ended_are_made_anew(system: System) -> None:
    with dg.DagsterInstance.get() as instance:
        run = dg.materialize([reported], instance=instance)
        ended = system.query("dagster", SESSIONS)
        for pid, _ in ended:
            system.query("dagster", "SELECT pg_terminate_backend(%s, 10000)", [pid])
        assert dg.materialize([reported], instance=instance).success
        assert instance.get_run_by_id(run.run_id) is not None
        assert not {*ended} & {*system.query("dagster", SESSIONS)}


@dg.asset_check(asset=reported)
def is_reported() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, metadata={"seen": 3})


@pytest.mark.long
def test_old_events_of_runs_are_pruned_and_what_is_known_of_assets_stays(system: System) -> None:
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=90)
    checked = dg.AssetCheckKey(reported.key, "is_reported")
    with dg.DagsterInstance.get() as instance:
        assert prune_run_events(instance, before) == 0
        old, new = (dg.materialize([reported, is_reported], instance=instance).run_id for _ in range(2))
        system.query(
            "dagster",
            "UPDATE dagster.event_logs SET timestamp = timestamp - interval '91 days' WHERE run_id = %s",
            [old],
        )
        logged = [len(instance.all_logs(run)) for run in (old, new)]
        pruned = prune_run_events(instance, before)
        kept = instance.all_logs(old)
        assert {event.dagster_event_type for event in kept} == {
            dg.DagsterEventType.ASSET_MATERIALIZATION,
            dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        }
        assert pruned == logged[0] - len(kept)
        assert len(instance.all_logs(new)) == logged[1]
        assert len(instance.fetch_materializations(reported.key, limit=9).records) == 2
        run = instance.get_run_by_id(old)
        assert run is not None
        assert run.is_success
        history = instance.event_log_storage.get_asset_check_execution_history(checked, limit=9)
        assert [each.run_id for each in history] == [new, old]
        assert prune_run_events(instance, before) == 0
