"""What a run may be configured with: plain values, never an environment variable, and no resource."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._config import ConfigTypeKind

from episodes_assets.definitions import build_defs, defs
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.defs.launchpad import ASSET_JOB, LOCATION, REPOSITORY, opened_ui
from episodes_assets_tests.support.runs import run
from episodes_assets_tests.support.system import System, day, failure

JOBS = {job.name: job for job in defs.get_repository_def().get_all_jobs()}
PLAIN = {"String", "Bool", "Int", "Float"}
# Dagster ignores the configuration of steps and resources that a job over assets does not have.
IGNORED = {(ASSET_JOB, ("ops", "*")), (ASSET_JOB, ("resources", "*"))}
SECRET = "EPISODES_RESULTS_DSN"
_CHECK = """
    query ($pipeline: PipelineSelector!, $config: RunConfigData!) {
        isPipelineConfigValid(pipeline: $pipeline, runConfigData: $config, mode: "default") {
            __typename
            ... on RunConfigValidationInvalid { errors { message } }
        }
    }
"""


def fields_of(kind: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each place of a configuration where a value can stand, with its type."""
    if kind.kind in (ConfigTypeKind.STRICT_SHAPE, ConfigTypeKind.PERMISSIVE_SHAPE, ConfigTypeKind.SELECTOR):
        if kind.kind is ConfigTypeKind.PERMISSIVE_SHAPE:
            yield (*path, "*"), kind
        for name, field in kind.fields.items():
            yield from fields_of(field.config_type, (*path, name))
    elif kind.kind in (ConfigTypeKind.NONEABLE, ConfigTypeKind.ARRAY):
        yield from fields_of(kind.inner_type, path)
    else:
        yield path, kind


def fields_of_job(name: str) -> list[tuple[tuple[str, ...], Any]]:
    found = fields_of(JOBS[name].run_config_schema.run_config_schema_type)
    return [(path, kind) for path, kind in found if (name, path) not in IGNORED]


def nested(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """A configuration with one value in it."""
    first, *rest = path
    return {first: nested(tuple(rest), value) if rest else value}


@pytest.mark.parametrize("name", JOBS)
def test_each_field_takes_a_plain_value_and_no_environment_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "a secret")
    fields = fields_of_job(name)
    assert ("loggers", "console", "config", "name") in dict(fields)
    for path, kind in fields:
        assert kind.kind is ConfigTypeKind.SCALAR, path
        assert kind.key in PLAIN, path
        with pytest.raises(dg.DagsterInvalidConfigError) as refused:
            dg.validate_run_config(JOBS[name], nested(path, {"env": SECRET}))
        assert "a secret" not in str(refused.value)


@pytest.mark.parametrize("name", JOBS)
def test_no_resource_takes_any_configuration(name: str) -> None:
    assert [path for path, _ in fields_of_job(name) if path[0] == "resources"] == []
    schema: Any = JOBS[name].run_config_schema.run_config_schema_type
    resources = schema.fields["resources"].config_type.fields
    assert set(resources) == set(defs.resources or {})
    for resource in resources:
        with pytest.raises(dg.DagsterInvalidConfigError, match="unexpected config entr"):
            dg.validate_run_config(JOBS[name], nested(("resources", resource, "config", "url"), "/tmp"))


def test_an_op_that_takes_no_configuration_refuses_it() -> None:
    for name, job in JOBS.items():
        for op in (node.name for node in job.nodes):
            with pytest.raises(dg.DagsterInvalidConfigError):
                dg.validate_run_config(job, nested(("ops", op, "config", "nothing_reads_this"), "a DSN"))
            assert all(path[:2] != ("ops", op) or len(path) == 4 for path, _ in fields_of_job(name))


@pytest.mark.parametrize(
    "config",
    [
        nested(("ops", "waive_held_jobs_op", "config", "reason"), {"env": SECRET}),
        nested(("resources", "queue_database", "config", "override_dsn"), "postgresql://x@127.0.0.1/q"),
        nested(("resources", "lake", "config", "url"), "/tmp/elsewhere"),
    ],
    ids=["env", "override_dsn", "url"],
)
def test_the_web_ui_says_what_is_wrong(system: System, config: dict[str, Any]) -> None:
    job = {
        "repositoryLocationName": LOCATION,
        "repositoryName": REPOSITORY,
        "pipelineName": "waive_held_jobs",
    }
    with opened_ui() as ui:
        answer = ui.ask(_CHECK, pipeline=job, config=config)
    assert answer["__typename"] == "RunConfigValidationInvalid"
    (error,) = answer["errors"]
    assert system.dsn(Purpose.RESULTS) not in error["message"]
    assert "at path root:" in error["message"]


@pytest.mark.long
def test_a_secret_is_neither_published_nor_kept(system: System) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in (1, 2)])
    system.plan(day(1))
    system.hold_jobs("true")
    with dg.DagsterInstance.get() as instance:
        for job in ("waive_held_jobs", "cancel_jobs"):
            with pytest.raises(dg.DagsterInvalidConfigError):
                run(instance, job, {"reason": {"env": SECRET}})
    assert system.query("queue", "SELECT reason FROM ledger.waivers") == []
    with pytest.raises(dg.DagsterInvalidConfigError):
        system.materialize(day(1), config={"refresh": True, "reason": {"env": SECRET}})
    assert system.dsn(Purpose.RESULTS) not in str(system.drops.find(day(1)))


@pytest.mark.parametrize(("option", "value"), [("arrival_retries", -1), ("arrival_retry_seconds", 0.0)])
def test_a_value_out_of_its_bounds_is_refused_by_name(system: System, option: str, value: float) -> None:
    said = failure(system.materialize(day(1), select=["input_episodes"], config={option: value}))
    assert option in said
    assert "greater than" in said


def test_resources_are_replaced_in_code(system: System) -> None:
    class Broken(dg.ConfigurableResource):  # type: ignore[type-arg]
        def drops(self) -> None:
            raise ConnectionError("replaced")

    job = build_defs({"lake": Broken()}).resolve_job_def(ASSET_JOB)
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(instance=instance, partition_key=str(day(1)), raise_on_error=False)
    assert "replaced" in failure(result)


def test_a_text_that_postgresql_cannot_keep_is_refused(system: System) -> None:
    refused = system.materialize(day(1), config={"refresh": True, "reason": "a\0b"})
    assert "the option reason of take_input is refused: Value error, it holds a NUL" in failure(refused)
