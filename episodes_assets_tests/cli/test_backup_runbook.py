"""The runbook of docs/backup.md, run as it stands: base backup, archive, recovery to a restore point."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from episodes_assets.cli.context import prepare_dagster_home
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.postgres.provision.init import provision
from episodes_assets.private_files import open_file
from episodes_assets.results.restore_points import read_restore_points
from episodes_assets.settings import PROJECT_FOLDER, load_settings
from episodes_assets_tests.support.invoke import output
from episodes_assets_tests.support.own_server import ADMINISTRATOR, OwnServer, own_server
from episodes_assets_tests.support.system import System, day, failure

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(600)]

RUNBOOK = (PROJECT_FOLDER / "docs" / "backup.md").read_text(encoding="utf-8")


def commands(heading: str) -> str:
    """The commands below a heading."""
    (found,) = re.findall(
        rf"^### {re.escape(heading)}\n.*?```sh\n(.*?)```", RUNBOOK, re.MULTILINE | re.DOTALL
    )
    return str(found)


def follow(server: OwnServer, heading: str, variables: Mapping[str, str]) -> str:
    """Run the commands below a heading as the user who runs the server; what they print."""
    options = server.programs.options
    environment = options["env"] | variables | {"PATH": f"{server.programs.folder}:{os.defpath}"}
    told = Path(variables["BACKUP"]) / "told"
    with told.open("w+") as out:  # no pipe: the server would hold it open
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands(heading)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
            **{**options, "env": environment},
        )
    assert done.returncode == 0, told.read_text()
    return told.read_text()


def point_after(system: System, number: int) -> str:
    with connect(system.dsn(Purpose.RESULTS)) as results:
        return read_restore_points(results, day(number))[-1].name


def work(system: System, first: int, last: int) -> None:
    with system.workers():
        done = system.materialize(day(first), day(last))
    assert done.success, failure(done)


def test_the_system_is_put_back_to_a_published_day_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_server() as server:
        place = server.data.parent
        variables = {
            "PGDATA": str(server.data),
            "ARCHIVE": str(place / "archive"),
            "BACKUP": str(place / "backup"),
            "NIGHT": "monday",
            # Without the password, as everybody sees the arguments of commands.
            "ADMIN_DSN": server.admin_dsn.replace(f":{server.password}@", "@"),
            "PGPASSFILE": str(place / "pgpass"),
        }
        assert server.password not in variables["ADMIN_DSN"]
        with open_file(place / "pgpass", "x") as passwords:
            passwords.write(f"*:*:*:{ADMINISTRATOR}:{server.password}\n")
        if server.programs.account is not None:
            server.programs.account.own(place / "pgpass")
        for name in ("ARCHIVE", "BACKUP"):
            Path(variables[name]).mkdir()
            if server.programs.account is not None:
                server.programs.account.own(Path(variables[name]))
        with (server.data / "postgresql.conf").open("a") as settings:  # as a server of one's own has them
            settings.write(f"port = {server.port}\nunix_socket_directories = '{place}'\n")
        system = set_up(server, tmp_path / "home", monkeypatch)
        follow(server, "Once: archive the log", variables)
        system.generate(day(1), day(4))
        work(system, 1, 1)
        follow(server, "Each night: a base backup", variables)
        work(system, 2, 2)
        at_the_point = system.fingerprint()
        runs = system.dagster.get_runs_count()
        work(system, 3, 4)
        after = system.published()
        point = point_after(system, 2)
        system.query("queue", "SELECT pg_switch_wal()")
        wait_for_archive(system)
        system.dagster.dispose()
        vars(system).pop("dagster")

        follow(server, "Restore to a restore point", {**variables, "POINT": point})
        assert system.fingerprint() == at_the_point
        assert system.dagster.get_runs_count() == runs
        assert (
            "The databases and the lake agree (2 published days, 2 tracked days)." in output("db", "check")[0]
        )
        work(system, 3, 4)
        assert system.published().equals(after)
        assert "The databases and the lake agree (4 published days" in output("db", "check")[0]
        assert point_after(system, 4) != point


def set_up(server: OwnServer, home: Path, patch: pytest.MonkeyPatch) -> System:
    """All databases on that server."""
    patch.setenv("EPISODES_HOME", str(home))
    patch.setenv("EPISODES_ALLOWED_HOSTS", server.address)
    patch.setenv("EPISODES_ADMIN_DSN", server.admin_dsn)
    for purpose in Purpose:
        patch.setenv(purpose.setting, f"postgresql://{purpose}:p@{server.address}/{purpose.database}")
    settings = load_settings()
    dsns = resolve_dsns(settings)
    provision(settings, dsns, lambda _: None)
    patch.delenv("DAGSTER_HOME", raising=False)
    patch.setenv("DAGSTER_HOME", str(prepare_dagster_home(settings)))
    with dg.DagsterInstance.get():  # makes Dagster's tables
        pass
    admin = f"postgresql://{ADMINISTRATOR}:{server.password}@{server.address}"
    return System(home, dsns, {database.value: f"{admin}/{database}" for database in Database})


def wait_for_archive(system: System) -> None:
    """Until all that was written before the last switch is in the archive."""
    finished = """
        DO $$ BEGIN
            WHILE (SELECT last_archived_wal IS NULL
                OR last_archived_wal < pg_walfile_name(pg_current_wal_lsn() - 16777216)
                FROM pg_stat_archiver) LOOP
                PERFORM pg_sleep(0.1), pg_stat_clear_snapshot();
            END LOOP;
        END $$
    """
    system.query("queue", finished)
