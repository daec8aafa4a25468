"""What a child process is told, and what is withheld from it."""

import os

import pytest
from pydantic import SecretStr

from episodes_assets.postgres import dsn
from episodes_assets.postgres.databases import FLEET, ORCHESTRATOR, WEBSERVER, Purpose
from episodes_assets.postgres.dsn import Dsns
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
    monkeypatch.setattr(dsn, "Settings", SettingsWithASecret)
    given = Dsns({p: f"dsn of {p}" for p in Purpose}, is_embedded=False).environment(purposes)
    assert given.get("EPISODES_PROVIDER_SECRET") == (None if is_dashboard else WITHHELD)
    assert "EPISODES_PROVIDER_NAME" not in given
    for purpose in Purpose:
        assert given[purpose.setting] == (f"dsn of {purpose}" if purpose in purposes else WITHHELD)
    assert given["EPISODES_ADMIN_DSN"] == WITHHELD


@pytest.mark.parametrize(
    ("purposes", "decides_on_alerts"), [(FLEET, False), (ORCHESTRATOR, True), ([], False), (WEBSERVER, True)]
)
def test_secrets_of_alerts_are_for_the_processes_that_decide_on_them(
    purposes: list[Purpose], *, decides_on_alerts: bool
) -> None:
    given = Dsns({}, is_embedded=False).environment(purposes)
    for name in ("SMTP_URL", "SLACK_URL", "WEBHOOK_URL", "WEBHOOK_TOKEN"):
        assert given.get(f"EPISODES_ALERT_{name}") == (None if decides_on_alerts else WITHHELD)


def test_children_inherit_what_was_handed_to_them_until_the_block_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EPISODES_ADMIN_DSN", "mine")
    monkeypatch.delenv("EPISODES_QUEUE_DSN", raising=False)
    given = Dsns({Purpose.QUEUE: "queue"}, is_embedded=False)
    before = dict(os.environ)
    with given.as_environment([Purpose.QUEUE, Purpose.RESULTS]):
        assert os.environ["EPISODES_ADMIN_DSN"] == os.environ["EPISODES_RESULTS_DSN"] == WITHHELD
        assert os.environ["EPISODES_QUEUE_DSN"] == "queue"
    assert dict(os.environ) == before
