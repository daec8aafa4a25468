"""`Declaration`: what an algorithm's module declares, for processes that do not run the module.

Its id, name, version, metric columns and time limit, and the rules for them. It loads no pandas, since every
process reads declarations. Reading them from the modules' text is `registry`; the function that computes is
in `base`.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY
from enum import StrEnum
from typing import Annotated, LiteralString, Self

from pydantic import ConfigDict, Field, FiniteFloat, model_validator
from pydantic.dataclasses import dataclass

# The algorithm whose first job of an episode catches up from its premiere: planning goes by this number.
REACH = 0
# Each algorithm has a view in the schema `published`, beside these tables and behind these columns.
RESERVED_NAMES = frozenset({"results", "days", "history", "repairs", "episodes", "restore_points"})
VIEW_COLUMNS = ("day", "epid", "window_start", "window_end", "covered_from")
# In a file, where rows of all algorithms stand together, the metrics come behind these.
KEY_COLUMNS = ("day", "epid", "algorithm_id", "window_start", "window_end", "covered_from")

_Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
STRICT = ConfigDict(strict=True, extra="forbid")


class Metric(StrEnum):
    """The type of a metric column."""

    INTEGER = "integer"
    REAL = "real"

    @property
    def column_type(self) -> LiteralString:
        """The type of the column in consumers' views, as SQL names it."""
        return "bigint" if self is Metric.INTEGER else "double precision"


@dataclass(frozen=True, config=STRICT)
class Declaration:
    """What everybody may know of an algorithm without running its module.

    Attributes:
        algorithm_id: The number by which catalogue rows ask for it.
        name: A lower-case identifier; also the name of its view for consumers.
        version: Changed by its author whenever its results change.
        description: One sentence on what it tells.
        columns: Its metric columns and their types, in the order consumers see them.
        may_be_missing: The columns in which a value may be missing. Anywhere else a missing value is a
            failure of its job, as an infinite one is everywhere.
        timeout_seconds: How long one job may take by itself; None for EPISODES_JOB_TIMEOUT_SECONDS.

    Raises:
        pydantic.ValidationError: If a value is not of its type or out of its range.
    """

    _: KW_ONLY
    algorithm_id: Annotated[int, Field(ge=0, le=32_767)]  # a smallint
    name: _Identifier
    version: Annotated[str, Field(min_length=1)]
    description: str
    columns: Annotated[Mapping[_Identifier, Metric], Field(min_length=1)]
    may_be_missing: Annotated[tuple[str, ...], Field(strict=False)] = ()
    timeout_seconds: Annotated[FiniteFloat, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _fit_into_the_published_schema(self) -> Self:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"{self.name} is the name of a published table")
        if reserved := {*KEY_COLUMNS} & self.columns.keys():
            raise ValueError(f"every row has a column {min(reserved)} already")
        if unknown := set(self.may_be_missing) - self.columns.keys():
            raise ValueError(f"may_be_missing names {min(unknown)}, which is no column")
        return self
