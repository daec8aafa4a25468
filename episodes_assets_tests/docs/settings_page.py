"""`docs/settings.md` from the fields of `Settings`, which `make docs` writes.

What is said of a setting is in `episodes_assets/settings.py`.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import annotated_types
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from episodes_assets.setting_fields import Section
from episodes_assets.settings import Settings

HEAD = """# Settings

<!-- Written by `make docs` from episodes_assets/settings.py: change a setting and its description there. -->

Each setting is a variable in the environment, or a line in the file `.env` in the checkout's folder; where a
wheel was installed, in `~/.episodes`. The environment goes before the file, and a variable that is empty
counts as not set. What cannot be understood is refused in one line when a process starts. A relative path is
looked for in the folder where the command is typed.

With no DSN set, one embedded PostgreSQL 18 (unix socket only,
[for one user of the machine](environments.md#the-embedded-server)) serves all four databases with the same
roles and migrations. With any DSN set, a process needs those of its own work:

- **orchestrator**: Dagster's daemon, code server and runs, and `episodes run`, `backfill`, `correct`, `demo`;
- **web server**: `episodes webserver`; without `--workspace` it also needs what the orchestrator does, since
  the code is loaded there;
- **worker**: `episodes worker`;
- `episodes up` starts all three and hands to each what it needs;
- `episodes db` looks at every database of which a DSN is set.

A setting marked *secret* is withheld from child processes that do not need it, and hidden in messages."""
COLUMNS = ("variable", "default", "used by", "meaning")


def main(path: str) -> None:
    """Write the page."""
    Path(path).write_text(settings_page(), encoding="utf-8")


def settings_page() -> str:
    """The page as it is to be."""
    parts = [HEAD]
    for section in Section:
        rows = [
            _row(name, field)
            for name, field in Settings.model_fields.items()
            if _said(field)["section"] == section.value
        ]
        parts.append(f"## {section.value}\n\n{_table(rows)}")
    return "\n\n".join(parts) + "\n"


def _row(name: str, field: FieldInfo) -> Sequence[str]:
    secret = " *Secret.*" if SecretStr in _types(field) else ""
    allowed = _allowed(field)
    meaning = f"{field.description}{f' {allowed}.' if allowed else ''}{secret}"
    linked = re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", meaning)
    said = _said(field)
    return f"`EPISODES_{name.upper()}`", said["default"] or _default(field), said["used_by"], linked


def _said(field: FieldInfo) -> dict[str, Any]:
    assert isinstance(field.json_schema_extra, dict), f"say of {field.description!r} where it is used"
    return field.json_schema_extra


def _types(field: FieldInfo) -> tuple[object, ...]:
    return (field.annotation, *getattr(field.annotation, "__args__", ()))


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is PydanticUndefined or default is None or default == "":
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _allowed(field: FieldInfo) -> str:
    bounds = []
    for each in field.metadata:
        if isinstance(each, annotated_types.Ge):
            bounds.append(f"at least {each.ge:,}")
        elif isinstance(each, annotated_types.Gt):
            bounds.append(f"more than {each.gt:,}")
        elif isinstance(each, annotated_types.Le):
            bounds.append(f"at most {each.le:,}")
    return ", ".join(bounds).capitalize()


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
