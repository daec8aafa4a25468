"""Sensors and schedules as Dagster's daemon leaves them on record, with ticks of any outcome."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo

REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("episodes_assets"), "__repository__")


def switch_on(instance: dg.DagsterInstance, name: str) -> InstigatorState:
    """A sensor that is on."""
    origin = RemoteInstigatorOrigin(REPOSITORY, name)
    state = InstigatorState(
        origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData(min_interval=30)
    )
    instance.add_instigator_state(state)
    return state


def add_ticks(
    instance: dg.DagsterInstance, state: InstigatorState, statuses: Sequence[TickStatus], at: float
) -> None:
    """Add ticks, the oldest first, one in ten seconds, the last one at a time."""
    for number, status in enumerate(reversed(statuses)):
        is_failed = status is TickStatus.FAILURE
        instance.create_tick(
            TickData(
                instigator_origin_id=state.instigator_origin_id,
                instigator_name=state.instigator_name,
                instigator_type=state.instigator_type,
                status=status,
                timestamp=at - 10 * number,
                selector_id=state.selector_id,
                error=SerializableErrorInfo("ValueError: no\n", [], "ValueError") if is_failed else None,
            )
        )
