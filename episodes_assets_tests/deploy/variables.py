"""The variables of the settings, by what they are for, as the settings themselves say it."""

from pydantic import SecretStr

from episodes_assets.setting_fields import Section, section_of
from episodes_assets.settings import Settings


def alert_settings() -> set[str]:
    """Those by which alerts reach people."""
    return {
        _variable(name)
        for name, field in Settings.model_fields.items()
        if section_of(field) is Section.ALERTS
    }


def secret_settings() -> set[str]:
    """Those that are secrets."""
    return {
        _variable(name)
        for name, field in Settings.model_fields.items()
        if SecretStr in getattr(field.annotation, "__args__", (field.annotation,))
    }


def other_settings() -> set[str]:
    """Those that are no secrets."""
    return {_variable(name) for name in Settings.model_fields} - secret_settings()


def _variable(name: str) -> str:
    return f"EPISODES_{name.upper()}"
