"""What every step does: options of plain types, verdicts as check results, foreseen errors as failures.

Options are plain values because `dagster.Config` declares its fields so that `{env: NAME}` is resolved in
place of a value, which would let whoever launches a run publish a DSN of the process that works it. The
types used here have no such form, so Dagster itself refuses it wherever a run is launched from. Which options
a step has, and what it does, is in `assets/`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from episodes_assets.checks.verdicts import Verdict
from episodes_assets.defs.launches import launched_by
from episodes_assets.defs.metadata import table
from episodes_assets.errors import BadRunConfig, EpisodesError, HostUnreachable, ReasonMissing
from episodes_assets.failures import explain
from episodes_assets.postgres.connect import Connection
from episodes_assets.results.repairs import RepairDecision, read_repairs_of_run
from episodes_assets.settings import Settings

TEAM = ["team:media-analytics"]

OUTAGE_RETRIES = 3


@contextmanager
def as_dagster_failure(settings: Settings, retries_for_other_reasons: int = 0) -> Iterator[None]:
    """Turn an error whose cause is known into a failed step that says what to do.

    Other errors are defects and are raised as they are. Only an unreachable database or object store is
    retried, with exponential backoff: it may be restarting. Steps are idempotent, so a retry continues after
    what was committed.

    Args:
        settings: `retry_seconds` is the first pause.
        retries_for_other_reasons: How often the step may be retried besides. Dagster counts all retries of a
            step together, so without this number none would be left for an outage.
    """
    try:
        yield
    except (dg.Failure, dg.RetryRequested):
        raise
    except Exception as raised:
        error = explain(raised)
        if error is None:
            raise
        retries = dg.OpExecutionContext.get().retry_number
        limit = OUTAGE_RETRIES + retries_for_other_reasons
        if isinstance(error, HostUnreachable) and retries < limit:
            dg.OpExecutionContext.get().log.warning(f"{error.what}; trying again")
            seconds = settings.retry_seconds * 2 ** min(retries, OUTAGE_RETRIES - 1)
            raise dg.RetryRequested(max_retries=limit, seconds_to_wait=seconds) from raised
        raise _failure(error) from raised


def _failure(error: EpisodesError) -> dg.Failure:
    return dg.Failure(
        description=str(error),
        metadata={"what happened": error.what, "what to do": error.hint},
        allow_retries=False,
    )


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since then, to the millisecond."""
        return round(time.perf_counter() - self._began, 3)


NO_OPTIONS: Mapping[str, dg.Field] = {}
"""The schema of a step with nothing to configure: without one, Dagster takes anything and keeps it."""
_PLAIN_TYPES: Mapping[Any, Any] = {str: dg.String, bool: dg.Bool, int: dg.Int, float: dg.Float}


class RunOptions(BaseModel):
    """The options of a step; each has a default and is one of str, bool, int and float."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*")
    @classmethod
    def _can_be_kept(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("it holds a NUL character, which PostgreSQL does not keep")
        return value

    @classmethod
    def config_schema(cls) -> dict[str, dg.Field]:
        """The step's `config_schema`.

        Raises:
            KeyError: If a field is of a type that is not plain.
        """
        return {
            name: dg.Field(
                _PLAIN_TYPES[field.annotation], default_value=field.default, description=field.description
            )
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def read(cls, context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Self:
        """The options that a run has for a step.

        Raises:
            dagster.Failure: If a value is out of its bounds.
        """
        own = context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
        try:
            return cls.model_validate(own.op_config)
        except ValidationError as error:
            first = error.errors()[0]
            refused = BadRunConfig(
                f"the option {first['loc'][0]} of {own.op.name} is refused: {first['msg']}",
                "launch the run again with another value",
            )
            raise _failure(refused) from error


class RepairOptions(RunOptions):
    """Whether a step repairs what it stores. The default leaves it alone; the check says what is wrong."""

    repair: bool = Field(
        default=False,
        description="Compare what is stored of the day with what it is to be, and replace what is damaged: "
        "rows that something else has changed, added or deleted. What is whole stays as it is.",
    )
    reason: str = Field(
        default="",
        description="Why the day is repaired, which must be said at one step of the run; kept with the name "
        "of whoever launches it, and shown by `episodes history`.",
    )

    def decision(self, context: dg.AssetExecutionContext) -> RepairDecision | None:
        """Why and by whom the run repairs days; None when this step does not.

        The reason is one for all of a run, and may be given at any of its steps.

        Raises:
            ReasonMissing: If it repairs, and no step says why.
        """
        if not self.repair:
            return None
        config: Mapping[str, Any] = context.run.run_config
        ops: Mapping[str, Any] = config.get("ops", {})
        configs = [each.get("config", {}) for each in ops.values()]
        # PostgreSQL keeps no NUL. The options of other steps are validated when those begin.
        said = [each.get("reason", "").replace("\0", " ").split() for each in configs if each.get("repair")]
        reason = next((" ".join(words) for words in said if words), "")
        if not reason:
            raise ReasonMissing(
                "a day is repaired only for a reason",
                "launch `repair_days` by *Open launchpad*, pick the day, and say why under `reason`",
            )
        return RepairDecision(reason, launched_by(context.run), context.run.run_id)


def report_repairs(
    context: dg.AssetExecutionContext, results: Connection, repair: RepairDecision | None
) -> None:
    """Log what a run that repairs has repaired so far, or that it has found nothing; nothing of other runs.

    Args:
        context: Of the step.
        results: To `results`.
        repair: The decision; None for a run that does not repair.
    """
    if repair is None:
        return
    found = read_repairs_of_run(results, repair.run_id)
    for each in found:
        context.log.warning(f"{each.day}: repaired in this run: {each.what}")
    if not found:
        context.log.info("nothing to repair so far")


DAYS_SHOWN = 50
Events = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


def conclude(metadata: Mapping[str, Any], verdicts: Sequence[Verdict]) -> Events:
    """End a step: its days are materialised, unless a blocking check failed.

    Args:
        metadata: Of the materialisation.
        verdicts: Of all the asset's checks.

    Yields:
        The materialisation with all verdicts, or the verdicts alone.

    Raises:
        dagster.Failure: If a blocking check failed; it is not retried.
    """
    yield from _conclude({None: (metadata, verdicts)})


def conclude_each(assets: Mapping[str, tuple[Mapping[str, Any], Sequence[Verdict]]]) -> Events:
    """Like `conclude`, for a step that materialises several assets: all of them, or none."""
    yield from _conclude({dg.AssetKey(name): parts for name, parts in assets.items()})


def _conclude(
    assets: Mapping[dg.AssetKey | None, tuple[Mapping[str, Any], Sequence[Verdict]]],
) -> Events:
    results = {key: [check_result(each, key) for each in verdicts] for key, (_, verdicts) in assets.items()}
    failed = [verdict for _, verdicts in assets.values() for verdict in verdicts if verdict.blocks]
    if not failed:
        for key, (metadata, _) in assets.items():
            yield dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=results[key])
        return
    for own in results.values():
        yield from own
    raise dg.Failure(
        description="; ".join(f"{verdict.check}: {verdict.message}" for verdict in failed),
        metadata={verdict.check: verdict.message for verdict in failed},
        allow_retries=False,
    )


def check_result(verdict: Verdict, asset: dg.AssetKey | None = None) -> dg.AssetCheckResult:
    """A verdict as the result of the check of its name; `asset` is needed if the step makes several."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=verdict.check,
        passed=verdict.passed,
        severity=severity(verdict),
        description=verdict.message,
        metadata=check_metadata(verdict),
    )


def check_evaluation(verdict: Verdict, asset: str) -> dg.AssetCheckEvaluation:
    """A verdict of a sensor, as the evaluation of an asset's check of its name."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=verdict.check,
        passed=verdict.passed,
        severity=severity(verdict),
        description=verdict.message,
        metadata=check_metadata(verdict),
    )


def severity(verdict: Verdict) -> dg.AssetCheckSeverity:
    """The severity of the check if it fails."""
    return dg.AssetCheckSeverity.ERROR if verdict.is_error else dg.AssetCheckSeverity.WARN


def check_metadata(verdict: Verdict) -> dict[str, Any]:
    """The numbers behind a verdict, and the days for which the check failed."""
    metadata: dict[str, Any] = dict(verdict.facts)
    if verdict.offending:
        metadata["offending days"] = len(verdict.offending)
        metadata["days"] = table(verdict.offending[:DAYS_SHOWN])
    return metadata
