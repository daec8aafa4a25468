"""Verdicts as Dagster's events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from episodes_assets.assets.reporting import table
from episodes_assets.checks.verdicts import Verdict

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
    yield from _conclude({None: (metadata, verdicts)})


def conclude_each(assets: Mapping[str, tuple[Mapping[str, Any], Sequence[Verdict]]]) -> Events:
    """The same of a step that makes several assets, by their names: all of them, or none."""
    yield from _conclude({dg.AssetKey(name): parts for name, parts in assets.items()})


def _conclude(
    assets: Mapping[dg.AssetKey | None, tuple[Mapping[str, Any], Sequence[Verdict]]],
) -> Events:
    results = {key: [check_result(each, key) for each in verdicts] for key, (_, verdicts) in assets.items()}
    closed = [verdict for _, verdicts in assets.values() for verdict in verdicts if verdict.closes]
    if not closed:
        for key, (metadata, _) in assets.items():
            yield dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=results[key])
        return
    for own in results.values():
        yield from own
    raise dg.Failure(
        description="; ".join(f"{verdict.gate}: {verdict.message}" for verdict in closed),
        metadata={verdict.gate: verdict.message for verdict in closed},
        allow_retries=False,
    )


def check_result(verdict: Verdict, asset: dg.AssetKey | None = None) -> dg.AssetCheckResult:
    """A verdict as the result of the check of its name; of a step that makes one asset, it is that one's."""
    return dg.AssetCheckResult(
        asset_key=asset,
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
