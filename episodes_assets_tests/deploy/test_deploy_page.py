"""docs/deploy.md says which process needs which DSN, as in the code; its commands get what they need."""

import re

import pytest

from episodes_assets.postgres.databases import FLEET, ORCHESTRATOR, WEBSERVER, Purpose
from episodes_assets.settings import PROJECT_FOLDER

UNITS = PROJECT_FOLDER / "deploy" / "systemd"
PAGE = (PROJECT_FOLDER / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_the_table_of_processes_names_just_the_dsns_that_each_needs() -> None:
    named = {
        row[1]: set(re.findall(r"EPISODES_\w+_DSN", row[0]))
        for row in re.finditer(
            r"^\| (code location|daemon|web server|worker|autoscaler) \|.*$", PAGE, re.MULTILINE
        )
    }
    assert named == {
        "code location": {purpose.setting for purpose in ORCHESTRATOR},
        "daemon": {Purpose.DAGSTER.setting},
        "web server": {purpose.setting for purpose in WEBSERVER},
        "worker": {purpose.setting for purpose in FLEET},
        "autoscaler": {Purpose.SCALER.setting},
    }


def _commands(page: str) -> list[str]:
    """The lines of a page's shell examples, those joined that go on."""
    text = (PROJECT_FOLDER / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return re.sub(r"\\\n\s*", "", "".join(blocks)).splitlines()


@pytest.mark.parametrize("page", ["deploy.md", "operations.md"])
def test_commands_that_need_a_processs_environment_get_it(page: str) -> None:
    """Typed in a plain shell they would find no DSN, and look after an embedded system of root's own."""
    with_it = re.compile(
        r"(kubectl .*exec .*deploy/episodes-code-location -- |docker compose exec code-location "
        r"|docker compose run --rm db-init |as_code |systemd-run .*/opt/episodes/bin/)$"
    )
    seen = set()
    for line in _commands(page):
        for found in re.finditer(r"episodes (drain|db finish)", line):
            assert with_it.search(line[: found.start()]), line
            seen.add(found[0])
    assert seen >= ({"episodes drain", "episodes db finish"} if page == "deploy.md" else {"episodes drain"})


@pytest.mark.parametrize("page", ["deploy.md", "operations.md"])
def test_systemd_run_gives_what_the_unit_gives(page: str) -> None:
    runs = [line for line in _commands(page) if "systemd-run" in line]
    assert len(runs) == {"deploy.md": 2, "operations.md": 1}[page]
    for line in runs:
        unit = "episodes-code" if "--uid=" in line else "episodes-db-init"
        text = (UNITS / f"{unit}.service").read_text(encoding="utf-8")
        files = re.findall(r"^EnvironmentFile=(.*)$", text, re.MULTILINE)
        assert re.findall(r"--property=EnvironmentFile=(\S+)", line) == files
        (user,) = re.findall(r"^(User|DynamicUser)=(.*)$", text, re.MULTILINE)
        assert (f"--uid={user[1]}" if user[0] == "User" else f"--property=DynamicUser={user[1]}") in line
        for variable in re.findall(r"--setenv=(\S+)", line):
            assert variable in text.replace("%S", "/var/lib"), variable
        # Ctrl-C reaches the command, and its exit code whoever has typed it.
        assert all(option in line for option in ("--pty", "--pipe", "--wait"))


def test_units_have_their_lake_in_an_object_store() -> None:
    """What a process makes in a folder is for its owner alone, and each unit has a user of its own."""
    words = " ".join(PAGE.split())
    condition = "where all processes run as one user (the containers of the chart and of Compose), "
    assert f"{condition}a folder that all machines mount" in words
    assert "ReadWritePaths" not in PAGE
    assert not any("ReadWritePaths" in unit.read_text(encoding="utf-8") for unit in UNITS.glob("*.service"))


def test_backups_are_looked_for_where_they_are_described() -> None:
    assert re.search(r"Back it up\s+\(\[backup\.md\]\(backup\.md\)\)", PAGE)
