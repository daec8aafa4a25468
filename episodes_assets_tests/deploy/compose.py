"""The Compose file, read as Compose does."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from episodes_assets.settings import PROJECT_FOLDER

FOLDER = PROJECT_FOLDER / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")


class Missing(KeyError):
    """A variable that has to be set is not."""


def read(variables: Mapping[str, str]) -> dict[str, Any]:
    """The Compose file with its variables put in.

    Raises:
        Missing: If one is not set that has no default.
    """

    def put_in(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: put_in(each) for name, each in value.items()}
        if isinstance(value, list):
            return [put_in(each) for each in value]
        return (
            _VARIABLE.sub(lambda found: _value(found, variables), value) if isinstance(value, str) else value
        )

    return dict(put_in(yaml.safe_load(FILE.read_text(encoding="utf-8"))))


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    value = variables.get(found["name"], "")
    if not value and found["how"] != "-":
        raise Missing(found["name"])
    return value or found["rest"] or ""


def example() -> dict[str, str]:
    """The variables of env.example."""
    lines = (FOLDER / "env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def workspace() -> dict[str, Any]:
    """The workspace that lies beside the Compose file."""
    return dict(yaml.safe_load((FOLDER / "workspace.yaml").read_text(encoding="utf-8")))


def volume_targets(file: Mapping[str, Any]) -> dict[str, str]:
    """Where the services of a Compose file mount each volume."""
    mounted = [volume.split(":") for each in file["services"].values() for volume in each.get("volumes", [])]
    return {source: target for source, target, *_ in mounted}
