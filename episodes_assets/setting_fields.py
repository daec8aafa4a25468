"""How a setting is declared: its section of docs/settings.md, who reads it, and the default shown there.

The settings themselves are in `settings`. The section also decides which processes a secret is withheld from
(`postgres/dsn.py`; DSNs are handed out one by one), and that a lab's processes are given those of jobs alone
(`lab/isolation.py`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import Field, JsonValue
from pydantic.fields import FieldInfo

T = TypeVar("T")


class Section(StrEnum):
    """The headings of docs/settings.md, in their order."""

    PROCESS = "Every process"
    DATABASES = "The databases"
    ADMINISTRATION = "Setting databases up"
    LAKE = "The input and the lake"
    JOBS = "Jobs and days"
    DASHBOARD = "The dashboard"
    ALERTS = "Alerts to people"


@dataclass(frozen=True)
class SettingFields:
    """Makes the fields of one section of docs/settings.md.

    Attributes:
        section: The section.
        used_by: The processes and commands that read them, where a field names no others.
        shown: What holds without them, where their own defaults do not say so.
    """

    section: Section
    used_by: str = ""
    shown: str = ""

    def __call__(
        self,
        default: T,
        description: str,
        used_by: str = "",
        *,
        shown: str | None = None,
        **options: Any,  # noqa: ANN401  bounds and the like, as pydantic's `Field` takes them
    ) -> T:
        """A field with its default and what the page says of it."""
        page: dict[str, JsonValue] = {
            "section": self.section.value,
            "used_by": used_by or self.used_by,
            "default": self.shown if shown is None else shown,
        }
        field: T = Field(default=default, description=description, json_schema_extra=page, **options)
        return field


def section_of(field: FieldInfo) -> Section | None:
    """The heading of docs/settings.md below which a setting stands."""
    extra = field.json_schema_extra
    return Section(str(extra["section"])) if isinstance(extra, dict) else None
