"""The connections that Dagster's storage keeps."""

import dagster as dg

from episodes_assets_tests.accounts.database import until
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
    until(lambda: system.query("dagster", SESSIONS) == [])


def test_connections_that_the_server_has_ended_are_made_anew(system: System) -> None:
    with dg.DagsterInstance.get() as instance:
        run = dg.materialize([reported], instance=instance)
        ended = system.query("dagster", SESSIONS)
        for pid, _ in ended:
            system.query("dagster", "SELECT pg_terminate_backend(%s, 10000)", [pid])
        assert dg.materialize([reported], instance=instance).success
        assert instance.get_run_by_id(run.run_id) is not None
        assert not {*ended} & {*system.query("dagster", SESSIONS)}
