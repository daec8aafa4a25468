"""The run launcher that `dagster.yaml` names: Dagster's own, which also finds runs that nobody executes.

A run is executed in a process of the code server, which reports a run whose process dies. When the server
dies as well, nobody does: the run stays STARTED until its time limit, up to seven hours, and holds one of the
few places in Dagster's queue. So the daemon, which monitors runs every half minute (`run_monitoring` in
`dagster.yaml`), asks the server that a run was launched on whether it executes it. Runs of `episodes run`
have no such server. Which runs automation takes for silent ones is in `runs`.
"""

import time
from dataclasses import dataclass

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import ConfigurableClassData, deserialize_value

ANSWER_SECONDS = 10
# A run that has just ended is not known to its server any more, and to the daemon not yet to have ended.
CHECKS_TO_FAIL = 2
# A server that is very busy, or is reached again in a moment, executes its runs all the same.
UNREACHABLE_SECONDS = 120.0


@dataclass(frozen=True)
class _Missed:
    """Checks in a row that did not find a run at its server."""

    checks: int
    since: float


class CheckedRunLauncher(dg.DefaultRunLauncher):
    """Launches runs on code servers, as Dagster does by default, and asks there whether they are executed.

    Args:
        inst_data: What `dagster.yaml` has of it, which Dagster keeps.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._missed: dict[str, _Missed] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether Dagster's monitoring may ask after runs."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Ask the code server that a run was launched on whether it executes it.

        Args:
            run: One that is STARTED.

        Returns:
            RUNNING, also where that is not certain; FAILED once the server has not known the run
            `CHECKS_TO_FAIL` times in a row, or has not answered for `UNREACHABLE_SECONDS`.
        """
        if GRPC_INFO_TAG not in run.tags:  # executed by a command
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:  # it has ended by now
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        address = client.socket or f"{client.host}:{client.port}"
        try:
            if _executes(client, run.run_id):
                self._missed.pop(run.run_id, None)
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            problem, patience = f"the code server {address} does not execute it any more", 0.0
        except DagsterUserCodeUnreachableError:
            problem, patience = f"the code server {address} does not answer", UNREACHABLE_SECONDS
        now = time.monotonic()
        before = self._missed.get(run.run_id, _Missed(0, now))
        missed = self._missed[run.run_id] = _Missed(before.checks + 1, before.since)
        if missed.checks < CHECKS_TO_FAIL or now - missed.since < patience:
            return CheckRunHealthResult(WorkerStatus.RUNNING, problem)
        del self._missed[run.run_id]
        return CheckRunHealthResult(WorkerStatus.FAILED, problem)


def _executes(client: DagsterGrpcClient, run_id: str) -> bool:
    answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id), timeout=ANSWER_SECONDS)
    return deserialize_value(answer, CanCancelExecutionResult).can_cancel
