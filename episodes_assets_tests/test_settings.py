"""Settings: what a child process is not handed, it does not find elsewhere either."""

from pathlib import Path

import pytest

from episodes_assets import settings
from episodes_assets.databases.dsns import FLEET, Dsns, Purpose


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
        "input_dsn": "postgresql://y@/input",
        "worker_dsn": "postgresql://y@/worker",
    }
