"""What operators launch through the dashboard: as whom it is recorded, and what they may configure."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import execute_run
from dagster._core.execution.backfill import BulkActionStatus
from dagster_graphql.schema import create_schema
from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import Role
from episodes_assets.defs.launches import LAUNCHED_BY
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.settings import PROJECT_FOLDER
from episodes_assets_tests.dashboard.served import JSON, Dashboard, serve_dashboard
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.system import day

LOCATION = "episodes_assets"
REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
FORGED = [{"key": LAUNCHED_BY, "value": "the-auditor"}]
PARTITION = [{"key": "dagster/partition", "value": str(day(1))}]
_RUN = "__typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }"
LAUNCH = f"mutation L($params: ExecutionParams!) {{ launchRun(executionParams: $params) {{ {_RUN} }} }}"
AGAIN = (
    "mutation R($params: ReexecutionParams) { launchRunReexecution(reexecutionParams: $params) {"
    f" {_RUN} }} }}"
)
BACKFILL = (
    "mutation B($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {"
    " __typename ... on LaunchBackfillSuccess { backfillId launchedRunIds }"
    " ... on PythonError { message } } }"
)
BACKFILL_AGAIN = (
    "mutation B($params: ReexecutionParams) { reexecutePartitionBackfill(reexecutionParams: $params) {"
    " __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"
)


@pytest.fixture(scope="module")
def dashboard(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """With the code location; no daemon takes what is launched."""
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_system(server_home, tmp_path_factory.mktemp("dashboard") / "home", patch) as system,
        serve_dashboard(system, PROJECT_FOLDER / "workspace.yaml") as served,
    ):
        yield served


def send(dashboard: Dashboard, document: str, params: Any, **headers: str) -> Any:
    """The one answer of a mutation by the operator, or the refusal's message."""
    client = dashboard.client(None if headers else Role.OPERATOR)
    body = json.dumps({"query": document, "variables": {"params": params}})
    answer = client.post("/graphql", content=body, headers={**JSON, **headers}).json()
    if "errors" in answer and "data" not in answer:
        return answer["errors"][0]["message"]
    (found,) = answer["data"].values()
    return found


def params_of(job: str, config: Any, tags: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "selector": {**REPOSITORY, "pipelineName": job},
        "runConfigData": config,
        "mode": "default",
        "executionMetadata": {"tags": list(tags)},
    }


def waiver(reason: Any = "why") -> dict[str, Any]:
    return {"ops": {"waive_held_jobs_op": {"config": {"reason": reason}}}}


def run_of(dashboard: Dashboard, answer: Any) -> dg.DagsterRun:
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run = dashboard.ui.workspace.instance.get_run_by_id(answer["run"]["runId"])
    assert run is not None
    return run


def test_a_launched_run_names_whoever_is_signed_in(dashboard: Dashboard) -> None:
    for tags in (
        PARTITION,
        [*PARTITION, *FORGED],
        [*FORGED, *PARTITION, {"key": "dagster/backfill", "value": "x"}],
    ):
        run = run_of(dashboard, send(dashboard, LAUNCH, params_of("waive_held_jobs", waiver(), tags)))
        assert run.tags[LAUNCHED_BY] == "operator"


def test_a_token_is_not_taken_for_a_user(dashboard: Dashboard) -> None:
    token = dashboard.accounts(sessions.create_token, "viewer", Role.OPERATOR, None)
    params = params_of("waive_held_jobs", waiver(), PARTITION)
    answer = send(dashboard, LAUNCH, params, Authorization=f"Bearer {token}")
    assert run_of(dashboard, answer).tags[LAUNCHED_BY] == "token viewer"


@pytest.mark.parametrize("keeps_tags", [True, False])
def test_a_run_that_is_executed_again_names_whoever_asked_for_that(
    dashboard: Dashboard, keeps_tags: bool
) -> None:
    instance = dashboard.ui.workspace.instance
    parent = run_of(dashboard, send(dashboard, LAUNCH, params_of("retry_held_jobs", {}, PARTITION)))
    instance.report_run_failed(parent)
    other = dashboard.accounts(sessions.create_token, f"again-{keeps_tags}".lower(), Role.OPERATOR, None)
    params = {
        "parentRunId": parent.run_id,
        "strategy": "ALL_STEPS",
        "extraTags": FORGED,
        "useParentRunTags": keeps_tags,
    }
    answer = send(dashboard, AGAIN, params, Authorization=f"Bearer {other}")
    assert run_of(dashboard, answer).tags[LAUNCHED_BY] == f"token again-{keeps_tags}".lower()


def test_runs_of_a_backfill_name_whoever_launched_it(dashboard: Dashboard) -> None:
    instance = dashboard.ui.workspace.instance
    params = {
        "selector": {"repositorySelector": REPOSITORY, "partitionSetName": "waive_held_jobs_partition_set"},
        "partitionNames": [str(day(1)), str(day(2))],
        "tags": FORGED,
    }
    answer = send(dashboard, BACKFILL, params)
    backfill = instance.get_backfill(answer["backfillId"])
    assert backfill is not None
    assert backfill.tags[LAUNCHED_BY] == "operator"
    # As the daemon makes a run of it, in another process.
    tags = {**backfill.tags, LAUNCHED_BY: "the-auditor", "dagster/backfill": backfill.backfill_id}
    run = instance.add_run(dg.DagsterRun("waive_held_jobs", tags=tags))
    assert run.tags[LAUNCHED_BY] == "operator"
    at_once = send(dashboard, BACKFILL, {**params, "forceSynchronousSubmission": True})
    for run_id in at_once["launchedRunIds"]:
        made = instance.get_run_by_id(run_id)
        assert made is not None
        assert made.tags[LAUNCHED_BY] == "operator"
    assert len(at_once["launchedRunIds"]) == 2
    instance.update_backfill(backfill._replace(status=BulkActionStatus.COMPLETED_SUCCESS))
    other = dashboard.accounts(sessions.create_token, "backfills-again", Role.OPERATOR, None)
    params = {"parentRunId": backfill.backfill_id, "strategy": "ALL_STEPS"}
    answer = send(dashboard, BACKFILL_AGAIN, params, Authorization=f"Bearer {other}")
    again = instance.get_backfill(answer["backfillId"])
    assert again is not None
    assert again.tags[LAUNCHED_BY] == "token backfills-again"


@pytest.mark.long
def test_the_decision_is_recorded_with_that_name(dashboard: Dashboard) -> None:
    system = dashboard.system
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in (1, 2)])
    system.plan(day(1))
    system.hold_jobs("epid = 1")
    tags = [*PARTITION, *FORGED]
    for job, reason in (("waive_held_jobs", "withdrawn"), ("cancel_jobs", "wrong")):
        config = {"ops": {f"{job}_op": {"config": {"reason": reason}}}}
        run = run_of(dashboard, send(dashboard, LAUNCH, params_of(job, config, tags)))
        work(dashboard, run)
    with connect(system.dsn(Purpose.QUEUE)) as queue:
        decided = queue.execute("SELECT reason, decided_by FROM ledger.waivers").fetchall()
        (error,) = queue.execute("SELECT error FROM ledger.job_states WHERE epid = 2").fetchone() or ("",)
    assert decided == [("withdrawn", "operator")]
    assert error.startswith("cancelled by operator at ")


def work(dashboard: Dashboard, run: dg.DagsterRun) -> None:
    """Execute a queued run as a process of its own does."""
    instance = dashboard.ui.workspace.instance
    starting = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, run.job_name)
    instance.report_dagster_event(starting, run.run_id)
    ready = instance.get_run_by_id(run.run_id)
    assert ready is not None
    code = ReconstructableRepository.for_module("episodes_assets.definitions", "defs")
    assert execute_run(
        code.get_reconstructable_job(run.job_name), ready, instance, raise_on_error=True
    ).success


def begun(dashboard: Dashboard) -> Any:
    """What the newest mutation's event says that came before it was executed."""
    return [detail for _, detail, outcome in dashboard.events("graphql mutation") if outcome == "begun"][-1]


def count_runs(dashboard: Dashboard) -> int:
    instance = dashboard.ui.workspace.instance
    return instance.get_runs_count() + len(instance.get_backfills())


def test_long_tags_sent_first_hide_nothing(dashboard: Dashboard) -> None:
    """A run whose job and configuration are not on record could be deleted, and nobody would know."""
    long = [{"key": f"k{number}", "value": "x" * 500} for number in range(6)]
    params: dict[str, Any] = {
        "executionMetadata": {"tags": [*long, *PARTITION]},
        "runConfigData": "ops: {cancel_jobs_op: {config: {reason: the true one}}}",
        "selector": {**REPOSITORY, "jobName": "cancel_jobs"},
    }
    run = run_of(dashboard, send(dashboard, LAUNCH, params))
    detail = begun(dashboard)
    (call,) = detail["calls"]
    told = call["arguments"]["executionParams"]
    assert call["field"] == "launchRun"
    assert told["selector"]["jobName"] == "cancel_jobs"
    assert told["runConfigData"] == params["runConfigData"]
    assert told["executionMetadata"]["tags"] == params["executionMetadata"]["tags"]
    body = json.dumps({"query": LAUNCH, "variables": {"params": params}})
    assert detail["sha256"] == hashlib.sha256(body.encode()).hexdigest()
    done = dashboard.events("graphql mutation")[-1]
    assert (done[1]["request"], done[1]["launched"]) == (detail["request"], [run.run_id])

    send(dashboard, "mutation D($params: String!) { deleteRun(runId: $params) { __typename } }", run.run_id)
    (deleted,) = begun(dashboard)["runs"]
    assert deleted["run"] == run.run_id
    assert deleted["job"] == "cancel_jobs"
    assert deleted["tags"]["dagster/partition"] == str(day(1))
    assert deleted["tags"][LAUNCHED_BY] == "operator"
    assert "the true one" in deleted["runConfigData"]


@pytest.mark.parametrize("what", ["tags", "run configuration", "asset selection"])
def test_what_is_too_much_for_the_audit_log_is_not_launched(dashboard: Dashboard, what: str) -> None:
    params = params_of("cancel_jobs", {}, PARTITION)
    if what == "tags":
        params["executionMetadata"]["tags"] += [{"key": f"k{n}", "value": "x" * 5_000} for n in range(6)]
    elif what == "run configuration":
        params["runConfigData"] = "#" * 20_000
    else:
        params["selector"]["assetSelection"] = [{"path": [f"asset{n}"]} for n in range(2_000)]
    before = count_runs(dashboard)
    assert "more than the audit log keeps of one request" in send(dashboard, LAUNCH, params)
    assert count_runs(dashboard) == before
    _, detail, outcome = dashboard.events("request refused")[-1]
    assert outcome == "too much for the audit log"
    assert detail["fields"] == ["launchRun"]
    assert len(detail["sha256"]) == 64


def test_a_backfill_of_years_is_on_record_by_its_ranges(dashboard: Dashboard) -> None:
    days = [str(day(number)) for number in range(1, 879) if number != 100]
    params = {"assetSelection": [{"path": [name]} for name in INPUT], "partitionNames": [*days, "2018-03-01"]}
    backfill = send(dashboard, BACKFILL, params)["backfillId"]
    (call,) = begun(dashboard)["calls"]
    assert call["arguments"]["backfillParams"]["partitionNames"] == [
        "2018-03-01 to 2018-06-07 (99 days)",
        "2018-06-09 to 2020-07-25 (778 days)",
        "2018-03-01",
    ]
    assert dashboard.events("graphql mutation")[-1][1]["launched"] == [backfill]


INPUT = ("input_episodes", "input_viewings")  # made by one step
MANY = (
    "mutation M($params: ExecutionParams!) {"
    " launchMultipleRuns(executionParamsList: [$params]) { __typename } }"
)
CHECK = (
    'query V($params: RunConfigData) { isPipelineConfigValid(mode: "default", runConfigData: $params,'
    ' pipeline: {pipelineName: "p", repositoryName: "r", repositoryLocationName: "l"}) { __typename } }'
)
ENV = {"env": "EPISODES_RESULTS_DSN"}
WITH_ENV = {
    "an object": waiver(ENV),
    "YAML": "ops: {waive_held_jobs_op: {config: {reason: {env: EPISODES_RESULTS_DSN}}}}",
    "JSON": json.dumps(waiver(ENV)),
    "an alias": "a: &a {env: X}\nb: [*a]",
    "where nothing is configured": {"anything": [{"deep": [ENV]}]},
}


@pytest.mark.parametrize("config", WITH_ENV.values(), ids=WITH_ENV)
def test_no_request_takes_an_environment_variable(dashboard: Dashboard, config: Any) -> None:
    before = count_runs(dashboard)
    execution = params_of("waive_held_jobs", config, PARTITION)
    backfill = {"partitionNames": [str(day(1))], "runConfigData": config}
    for document, params in (
        (LAUNCH, execution),
        (LAUNCH.replace("launchRun", "launchPipelineExecution"), execution),
        (LAUNCH.replace("launchRun", "launchRunReexecution"), execution),
        (MANY, execution),
        (BACKFILL, backfill),
    ):  # fmt: skip
        assert "names an environment variable" in send(dashboard, document, params), document
        assert dashboard.events("request refused")[-1][2] == "environment variable"
    assert "names an environment variable" in send(dashboard, CHECK, config)
    assert count_runs(dashboard) == before


def test_a_literal_in_the_document_is_read_as_well(dashboard: Dashboard) -> None:
    document = (
        'mutation { launchRun(executionParams: {selector: {jobName: "waive_held_jobs", repositoryName: "r",'
        ' repositoryLocationName: "l"}, runConfigData: {ops: {x: {env: "PATH"}}}}) { __typename } }'
    )
    answer = dashboard.client(Role.OPERATOR).post("/graphql", json={"query": document})
    assert answer.status_code == 400
    assert "names an environment variable" in answer.text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (waiver(ENV), "names an environment variable"),
        ({"resources": {"lake": {"config": {"url": "/tmp"}}}}, 'unexpected config entry "url"'),
        (
            {"ops": {"waive_held_jobs_op": {"config": {"decided_by": "x"}}}},
            'unexpected config entry "decided_by"',
        ),
    ],
    ids=["env", "resource", "name"],
)
def test_a_run_of_an_older_release_is_not_executed_again(
    dashboard: Dashboard, config: Any, said: str
) -> None:
    instance = dashboard.ui.workspace.instance
    made = run_of(dashboard, send(dashboard, LAUNCH, params_of("waive_held_jobs", waiver(), PARTITION)))
    old = instance.add_run(made._replace(run_id=str(uuid.uuid4()), run_config=config))
    instance.report_run_failed(old)
    before = count_runs(dashboard)
    answer = send(dashboard, AGAIN, {"parentRunId": old.run_id, "strategy": "ALL_STEPS"})
    assert said.lower() in (answer if isinstance(answer, str) else answer["message"]).lower()
    assert count_runs(dashboard) == before


def test_every_run_configuration_goes_by_one_name() -> None:
    schema = create_schema().graphql_schema
    inputs = {
        name
        for kind in schema.type_map.values()
        if isinstance(kind, GraphQLInputObjectType)
        for name, field in kind.fields.items()
        if get_named_type(field.type).name == "RunConfigData"
    }
    arguments = {
        name
        for kind in schema.type_map.values()
        if isinstance(kind, GraphQLObjectType)
        for field in kind.fields.values()
        for name, argument in field.args.items()
        if get_named_type(argument.type).name == "RunConfigData"
    }
    assert inputs == arguments == {"runConfigData"}
