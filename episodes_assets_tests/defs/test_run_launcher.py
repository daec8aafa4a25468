"""Runs whose code server was killed: they fail soon, and do not hold their places in Dagster's queue."""

import json
import logging
import os
import subprocess
from typing import Any, cast

import dagster as dg
import psutil
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from dagster._grpc.types import CanCancelExecutionResult
from dagster._serdes import serialize_value

from episodes_assets.cli.supervisor import program
from episodes_assets.defs import run_launcher
from episodes_assets.defs.run_launcher import CheckedRunLauncher
from episodes_assets_tests.support.dagster_processes import code_argv, quiet_process, write_workspace
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.own_server import free_port
from episodes_assets_tests.support.system import System

pytestmark = pytest.mark.process


class Server:
    """In place of a client of a code server: whether it executes the run, or does not answer (None)."""

    socket = "/run/code.sock"

    def __init__(self, *answers: bool | None) -> None:
        self.answers = list(answers)

    def can_cancel_execution(self, _request: object, timeout: int) -> str:
        assert timeout > 0
        answer = self.answers.pop(0)
        if answer is None:
            raise DagsterUserCodeUnreachableError("no answer")
        return serialize_value(CanCancelExecutionResult(can_cancel=answer))


@pytest.mark.parametrize(
    ("answers", "patience", "statuses"),
    [
        ([True, False, True, False, False], 99, ["RUNNING"] * 4 + ["FAILED"]),
        ([None, None, None, True, None], 99, ["RUNNING"] * 5),
        ([None, None], 0, ["RUNNING", "FAILED"]),
        # Its server was away, and started anew.
        ([None, False], 99, ["RUNNING", "FAILED"]),
    ],
)
def test_a_run_is_failed_that_its_server_does_not_execute(
    monkeypatch: pytest.MonkeyPatch, answers: list[bool | None], patience: float, statuses: list[str]
) -> None:
    monkeypatch.setattr(run_launcher, "UNREACHABLE_SECONDS", patience)
    server, launcher = Server(*answers), CheckedRunLauncher()
    monkeypatch.setattr(launcher, "_get_grpc_client_for_termination", lambda _: server)
    run = dg.DagsterRun("plan_day", run_id="r", tags={GRPC_INFO_TAG: "{}"})
    assert [launcher.check_run_worker_health(run).status.value for _ in answers] == statuses


def test_a_run_without_a_code_server_is_left_alone() -> None:
    run = dg.DagsterRun("plan_day", run_id="r")
    assert CheckedRunLauncher().check_run_worker_health(run).status is WorkerStatus.RUNNING


@pytest.mark.slow
def test_a_run_that_was_killed_with_its_server_fails(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_launcher, "UNREACHABLE_SECONDS", 0.0)
    port = free_port()
    workspace = write_workspace(system, port)
    instance = system.dagster
    assert isinstance(instance.run_launcher, CheckedRunLauncher)
    # It waits for a drop that does not come.
    waits = {"ops": {"take_input": {"config": {"arrival_retries": 9, "arrival_retry_seconds": 600}}}}
    argv = [*program("dagster"), "job", "launch", "--job", "plan_day", "--workspace", str(workspace)]
    argv += ["--config-json", json.dumps(waits), "--tags", json.dumps({"dagster/partition": "2018-03-01"})]

    def status() -> dg.DagsterRunStatus:
        (run,) = instance.get_runs()
        return run.status

    with (
        quiet_process(*code_argv(port)) as server,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([str(workspace)])) as context,
    ):

        def monitor() -> None:
            problems = execute_run_monitoring_iteration(context, logging.getLogger("monitor"))
            assert not any(problems)

        def is_served() -> bool:
            context.refresh_workspace()
            return not context.create_request_context().code_location_errors()

        eventually(is_served, 120)
        subprocess.run(argv, env=dict(os.environ), check=True, timeout=120, capture_output=True)
        (run,) = instance.get_runs()
        instance.launch_run(run.run_id, cast("Any", context.create_request_context()))
        eventually(lambda: status() is dg.DagsterRunStatus.STARTED, 120)
        for _ in range(3):
            monitor()
        assert status() is dg.DagsterRunStatus.STARTED
        process = psutil.Process(server.pid)
        for each in [*process.children(recursive=True), process]:
            each.kill()
        server.wait(60)
        for _ in range(2):
            monitor()
    assert status() is dg.DagsterRunStatus.FAILURE
    said = [event.message for event in instance.all_logs(run.run_id, dg.DagsterEventType.RUN_FAILURE)]
    assert f":{port} does not answer" in "".join(said)
