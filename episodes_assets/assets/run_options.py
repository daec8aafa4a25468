"""What may be configured about a run in the launchpad, as plain values.

`dagster.Config` declares its fields so that `{env: NAME}` is resolved in place of a value, which would let
whoever launches a run publish a DSN of the process that works it. The types used here have no such form, so
Dagster itself refuses it wherever a run is launched from.
"""

from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from episodes_assets.assets.reporting import plain_failures
from episodes_assets.errors import BadRunConfig

NO_OPTIONS: Mapping[str, dg.Field] = {}
"""The schema of a step with nothing to configure: without one, Dagster takes anything and keeps it."""

_PLAIN_TYPES: Mapping[Any, Any] = {str: dg.String, bool: dg.Bool, int: dg.Int, float: dg.Float}


class RunOptions(BaseModel):
    """The options of a step; each has a default and is one of str, bool, int and float."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        with plain_failures():
            try:
                return cls.model_validate(own.op_config)
            except ValidationError as error:
                first = error.errors()[0]
                raise BadRunConfig(
                    f"the option {first['loc'][0]} of {own.op.name} is refused: {first['msg']}",
                    "launch the run again with another value",
                ) from error
