"""Settings: what a child process is not handed, it does not find elsewhere either."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from episodes_assets import settings
from episodes_assets.algorithms import registry
from episodes_assets.errors import BadSetting
from episodes_assets.lab.isolation import without_source
from episodes_assets.postgres.databases import FLEET, Purpose
from episodes_assets.postgres.dsn import Dsns


def test_a_child_finds_no_dsn_in_the_env_file_that_was_withheld(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [name for name in settings.Settings.model_fields if name.endswith("_dsn")]
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"EPISODES_{name.upper()}=postgresql://x@/{name}\n" for name in every))
    given = Dsns({purpose: f"postgresql://y@/{purpose}" for purpose in Purpose}, is_embedded=False)
    for name, value in given.environment(FLEET).items():
        monkeypatch.setenv(name, value)
    read = settings.load_settings(_env_file=env_file)
    found = {name: value for name in every if (value := getattr(read, name)) is not None}
    assert {name: value.get_secret_value() for name, value in found.items()} == {
        "worker_dsn": "postgresql://y@/worker",
    }


def test_of_what_is_withheld_the_default_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One is read as JSON before anything else is known of it.
    every = [name for name in settings.Settings.model_fields if name != "algorithm_timeout_seconds"]
    env_file = tmp_path / ".env"
    env_file.write_text("EPISODES_OPENID_ISSUER=https://issuer\nEPISODES_CHUNK_JOBS=7\n")
    for name in every:
        monkeypatch.setenv(f"EPISODES_{name.upper()}", settings.WITHHELD)
    read = settings.load_settings(_env_file=env_file)
    fields = settings.Settings.model_fields
    assert {name: getattr(read, name) for name in every} == {
        name: fields[name].get_default(call_default_factory=True) for name in every
    }


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('{"reach": 0}', "greater than 0"),
        ('{"reach": -1}', "greater than 0"),
        ('{"raech": 5}', "no algorithm is called raech, but momentum, reach, retention are"),
    ],
)
def test_a_time_limit_that_none_can_keep_or_nobody_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, problem: str
) -> None:
    monkeypatch.setenv("EPISODES_ALGORITHM_TIMEOUT_SECONDS", value)
    with pytest.raises(BadSetting, match="EPISODES_ALGORITHM_TIMEOUT_SECONDS") as refused:
        settings.load_settings()
    assert problem in str(refused.value)
    monkeypatch.setenv("EPISODES_ALGORITHM_TIMEOUT_SECONDS", '{"reach": 5}')
    assert settings.load_settings().algorithm_timeout_seconds == {"reach": 5}


def test_a_time_limit_of_an_algorithm_that_cannot_be_read_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = replace(registry.get_registry(), problems=("reach.py, line 1: invalid syntax",))
    monkeypatch.setattr(registry, "get_registry", lambda: broken)
    monkeypatch.setenv("EPISODES_ALGORITHM_TIMEOUT_SECONDS", '{"called_otherwise": 5}')
    assert settings.load_settings().algorithm_timeout_seconds == {"called_otherwise": 5}


def test_every_setting_that_is_named_like_a_secret_is_one() -> None:
    """By its type it is withheld from child processes and hidden in messages."""
    named = {
        name
        for name, field in settings.Settings.model_fields.items()
        if re.search("dsn|secret|password|token|credential|^(alert|dead_man)_.*url", name)
        and field.annotation is not bool
    }
    withheld = Dsns({}, is_embedded=False).environment(())
    assert {f"EPISODES_{name.upper()}" for name in named} == set(withheld)
    assert set(withheld.values()) == {settings.WITHHELD}


@pytest.mark.parametrize("spelt", ["episodes_queue_dsn", "Episodes_Queue_Dsn"])
def test_a_setting_is_withheld_however_it_is_spelt(monkeypatch: pytest.MonkeyPatch, spelt: str) -> None:
    """Names of settings are read without regard to case, and the last of two spellings counts."""
    environment = {"EPISODES_HOME": "/home", spelt: "a secret", "PATH": "/bin"}
    apart = without_source(environment)
    assert "a secret" not in apart.values()
    assert (apart["EPISODES_HOME"], apart["PATH"]) == ("/home", "/bin")
    assert without_source(apart) == apart
    given = Dsns({}, is_embedded=False)
    assert "a secret" not in settings.with_settings(environment, given.environment(FLEET)).values()
    monkeypatch.setenv(spelt, "a secret")
    before = dict(os.environ)
    with given.as_environment(FLEET):
        assert "a secret" not in os.environ.values()
    assert dict(os.environ) == before


def test_an_installed_package_keeps_nothing_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "PROJECT_FOLDER", tmp_path / "site-packages")
    monkeypatch.setenv("HOME", str(tmp_path / "ann"))
    home = tmp_path / "ann" / ".episodes"
    assert settings.find_default_home() == (home, home / ".env")


def test_a_user_without_a_home_directory_has_a_default_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(settings, "PROJECT_FOLDER", tmp_path / "site-packages")
    monkeypatch.setattr(Path, "home", fail)
    assert settings.find_default_home()[0] == Path("/var/lib/episodes")
