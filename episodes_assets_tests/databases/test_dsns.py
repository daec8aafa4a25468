"""What a child process is told, and what is withheld from it."""

import pytest
from pydantic import SecretStr

from episodes_assets.databases import dsns
from episodes_assets.databases.dsns import FLEET, ORCHESTRATOR, WEBSERVER, Dsns, Purpose
from episodes_assets.settings import WITHHELD, Settings


class SettingsWithASecret(Settings):
    """As they are, with one more."""

    provider_secret: SecretStr | None = None
    provider_name: str = ""


@pytest.mark.parametrize(
    ("purposes", "is_dashboard"), [(FLEET, False), (ORCHESTRATOR, False), ([], False), (WEBSERVER, True)]
)
def test_only_the_dashboard_is_handed_secrets_that_are_no_dsn(
    purposes: list[Purpose], is_dashboard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dsns, "Settings", SettingsWithASecret)
    given = Dsns({p: f"dsn of {p}" for p in Purpose}, is_embedded=False).environment(purposes)
    assert given.get("EPISODES_PROVIDER_SECRET") == (None if is_dashboard else WITHHELD)
    assert "EPISODES_PROVIDER_NAME" not in given
    for purpose in Purpose:
        assert given[purpose.setting] == (f"dsn of {purpose}" if purpose in purposes else WITHHELD)
    assert given["EPISODES_ADMIN_DSN"] == WITHHELD
