"""The error of a step or a command that was to fail, and what no message may say."""

import subprocess

import dagster as dg

from episodes_assets_tests.support.system import System

NEVER_SAID = (
    "Background on this error",
    "DagsterExecutionStepExecutionError",
    "failed unexpectedly",
    "check the DSN",
    "Traceback",
)


def assert_plain(text: str) -> None:
    """No message of a cause that is not the DSN's fault holds any of these."""
    for never in NEVER_SAID:
        assert never not in text, text


def the_error(result: subprocess.CompletedProcess[str]) -> str:
    """The one error line of a command that failed."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert_plain(result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def step_failure(system: System, number: int) -> str:
    """What Dagster shows of the latest run's failed step."""
    with dg.DagsterInstance.get() as instance:
        (run, *_) = instance.get_runs(limit=1)
        for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            event = record.dagster_event
            assert event is not None
            shown = event.step_failure_data.user_failure_data
            assert shown is not None, event
            assert set(shown.metadata) == {"what happened", "what to do"}
            return str(shown.description)
    raise AssertionError("no step failed")
