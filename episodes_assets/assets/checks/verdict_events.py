"""Verdicts as Dagster's events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from episodes_assets.assets.reporting import table
from episodes_assets.gates.verdicts import Verdict

DAYS_SHOWN = 50

Events = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


def conclude(metadata: Mapping[str, Any], verdicts: Sequence[Verdict]) -> Events:
    """End a step: its days are materialised, unless a gate is closed.

    Args:
        metadata: Of the materialisation.
        verdicts: Of all the asset's gates.

    Yields:
        The materialisation with all verdicts, or the verdicts alone.

    Raises:
        dagster.Failure: If a gate is closed; it is not retried.
    """
    results = [check_result(verdict) for verdict in verdicts]
    closed = [verdict for verdict in verdicts if verdict.closes]
    if not closed:
        yield dg.MaterializeResult(metadata=metadata, check_results=results)
        return
    yield from results
    raise dg.Failure(
        description="; ".join(f"{verdict.gate}: {verdict.message}" for verdict in closed),
        metadata={verdict.gate: verdict.message for verdict in closed},
        allow_retries=False,
    )


def check_result(verdict: Verdict) -> dg.AssetCheckResult:
    """A verdict as the result of the check of its name."""
    return dg.AssetCheckResult(
        check_name=verdict.gate,
        passed=verdict.passed,
        severity=severity(verdict),
        description=verdict.message,
        metadata=check_metadata(verdict),
    )


def severity(verdict: Verdict) -> dg.AssetCheckSeverity:
    """How bad a failure of it is."""
    return dg.AssetCheckSeverity.ERROR if verdict.is_error else dg.AssetCheckSeverity.WARN


def check_metadata(verdict: Verdict) -> dict[str, Any]:
    """The numbers behind a verdict, and the days that are not as they should be."""
    metadata: dict[str, Any] = dict(verdict.facts)
    if verdict.offending:
        metadata["offending days"] = len(verdict.offending)
        metadata["days"] = table(verdict.offending[:DAYS_SHOWN])
    return metadata
