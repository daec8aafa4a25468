"""The systemd units: hardened, each with its own user and files of variables, and accepted by systemd."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from episodes_assets.settings import PROJECT_FOLDER, Settings

pytestmark = pytest.mark.process

FOLDER = PROJECT_FOLDER / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
NAMES = [unit.name for unit in UNITS]
# In tenths; what systemd calls "OK" ends at 4.5, and a service without any of it has 9.2.
MOST_EXPOSURE = 20
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed: Debian's package systemd",
)


def values(name: str, key: str) -> list[str]:
    """What a unit says of a key, each time."""
    return re.findall(rf"^{key}=(.*)$", (FOLDER / name).read_text(encoding="utf-8"), re.MULTILINE)


def test_there_is_one_for_each_process() -> None:
    assert NAMES == [
        "episodes-code.service", "episodes-daemon.service", "episodes-db-init.service",
        "episodes-webserver.service", "episodes-worker@.service",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_user_and_variables_of_its_own(name: str) -> None:
    process = name.removeprefix("episodes-").removesuffix(".service").rstrip("@")
    assert values(name, "EnvironmentFile") == ["/etc/episodes/common.env", f"/etc/episodes/{process}.env"]
    if process == "db-init":
        assert values(name, "DynamicUser") == ["yes"]
        return
    assert values(name, "User") == [f"episodes-{process}"]
    users = re.findall(r"^u (\S+)", (FOLDER / "sysusers.conf").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"episodes-{process}" in users


@pytest.mark.parametrize("name", NAMES)
def test_each_is_hardened(name: str) -> None:
    assert values(name, "NoNewPrivileges") == ["yes"]
    assert values(name, "CapabilityBoundingSet") == [""]
    assert values(name, "ProtectSystem") == ["strict"]
    assert values(name, "SystemCallFilter") == ["@system-service"]
    assert "PYTHONSAFEPATH=1" in " ".join(values(name, "Environment")).split()
    # Dagster reads a .env in its current folder; in this one only root could leave any.
    assert values(name, "WorkingDirectory") == ["/"]
    (mask,) = values(name, "UMask")
    assert mask == ("0007" if name == "episodes-code.service" else "0077")


def test_only_what_calls_the_code_location_reaches_its_socket() -> None:
    (server,) = (
        each["grpc_server"]
        for each in yaml.safe_load((FOLDER / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    )
    (command,) = values("episodes-code.service", "ExecStart")
    assert f"--socket={server['socket']} " in command
    assert f"--location-name={server['location_name']}" in command
    assert "--empty-working-directory" in command
    # Those that come after it find it listening.
    assert f"until test -S {server['socket']};" in values("episodes-code.service", "ExecStartPost")[0]
    for name in ("episodes-daemon.service", "episodes-webserver.service"):
        assert "episodes-code.service" in values(name, "After")[0].split()
        assert values(name, "Requires") == [], "it would end whenever the code location is started anew"
    folder = Path(server["socket"]).parent
    assert values("episodes-code.service", "RuntimeDirectory") == [folder.name]
    assert values("episodes-code.service", "RuntimeDirectoryMode") == ["0750"]
    members = [name for name in NAMES if values(name, "SupplementaryGroups") == ["episodes-code"]]
    assert members == ["episodes-daemon.service", "episodes-webserver.service"]


def test_a_proxy_on_the_machine_ends_tls() -> None:
    """Without the setting, cookies travel over any connection and all clients have the proxy's address."""
    name = "episodes-webserver.service"
    assert "EPISODES_TLS_ENDS_AT_PROXY=true" in values(name, "Environment")
    assert "--host=127.0.0.1 " in values(name, "ExecStart")[0]
    assert Settings.model_fields["trusted_proxies"].default == "127.0.0.1"


def test_dagsters_own_programs_are_told_what_to_log_in() -> None:
    """systemd lets files of variables go before what a unit says of itself."""
    told = [name for name in NAMES if "--log-format=${DAGSTER_LOG_FORMAT}" in values(name, "ExecStart")[0]]
    assert told == ["episodes-code.service", "episodes-daemon.service"]
    for name in told:
        assert "DAGSTER_LOG_FORMAT=colored" in values(name, "Environment")


def test_a_worker_has_the_time_for_its_longest_batch() -> None:
    name = "episodes-worker@.service"
    limit = Settings.model_fields["batch_timeout_seconds"].default
    assert float(values(name, "TimeoutStopSec")[0]) == limit + 60
    # The compute process must not get the signal that the worker gets.
    assert values(name, "KillMode") == ["mixed"]
    memory = Settings.model_fields["compute_memory_mb"].default
    assert values(name, "MemoryMax") == [f"{(memory + 1_024) // 1_024}G"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units where all that they start is there, which `verify` looks at."""
    folder = tmp_path_factory.mktemp("units")
    program = folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in [*UNITS, *FOLDER.glob("*.target")]:
        text = unit.read_text(encoding="utf-8")
        (folder / unit.name).write_text(
            re.sub(r"(?<=^ExecStart=)/opt/\S+", str(program), text, flags=re.MULTILINE)
        )
    return folder


def _instances(folder: Path) -> list[str]:
    return [str(folder / name.replace("@.", "@1.")) for name in NAMES]


@needs_systemd
def test_systemd_understands_every_line(installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *_instances(installed), str(installed / "episodes.target")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    # It looks at the units of this machine as well, which may be old.
    said = [line for line in done.stderr.splitlines() if "episodes" in line]
    assert said == []
    assert done.returncode == 0, done.stderr


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_little_is_exposed(installed: Path, name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", "--no-pager",
         str(installed / name.replace("@.", "@1."))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "--offline" in done.stderr:
        pytest.skip("this systemd cannot look at units that are not loaded (250 can)")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
