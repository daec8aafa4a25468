"""The image: small, without a compiler, and each process runs in it, confined, with just its DSNs."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx2
import psycopg
import pytest

from episodes_assets.input.sample import generate_input
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.deploy import compose, containers
from episodes_assets_tests.deploy.containers import Builder, Containers, Mount
from episodes_assets_tests.support.own_server import OwnServer, free_port, own_server
from episodes_assets_tests.support.system import day

MOST_MEGABYTES = 900
pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(containers.why_not() is not None, reason=containers.why_not() or ""),
]
Service = tuple[list[str], dict[str, str], list[Mount]]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """The image, built."""
    made = Builder.open(tmp_path_factory.mktemp("images"))
    try:
        made.make_base()
        made.build()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def image(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Its root file system, in which containers run."""
    with builder.mounted() as root:
        yield Containers(root, builder.configuration(), tmp_path_factory.mktemp("logs"))


def test_the_image(
    builder: Builder, image: Containers, databases: OwnServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In one test, so that it is built once however many processes run tests."""
    _check_size(builder)
    _check_programs(image)
    _check_writing(image)
    _check_demo(image)
    _check_a_day(image, databases, tmp_path_factory)


def _check_size(builder: Builder) -> None:
    layers = builder.layers()
    assert len(layers) == 4, layers  # Debian, Python, dependencies, the package
    print("\n".join(f"{layer.megabytes:6.1f} MB  {layer.made_by[:80]}" for layer in layers))
    assert sum(layer.megabytes for layer in layers) <= MOST_MEGABYTES
    assert layers[-1].megabytes < 20, "a release that changes no dependency is a small download"


def _check_programs(image: Containers) -> None:
    said = image.run(
        "tools",
        ["sh", "-c", "id -u; for name in gcc cc ld pip pip3 make; do command -v $name; done; echo end"],
        {},
    )
    assert said == "10001\nend\n"


def _check_writing(image: Containers) -> None:
    script = (
        "for d in / /opt/episodes /etc /usr /var; do touch $d/x 2>/dev/null && echo $d; done; touch /tmp/x"
    )
    assert image.run("writing", ["sh", "-c", script], {}) == ""


def _check_demo(image: Containers) -> None:
    said = image.run("demo", ["episodes", "demo", "--days", "1", "--episodes", "60", "--workers", "1"], {})
    assert "2018-03-01" in said


@pytest.fixture(scope="module")
def databases() -> Iterator[OwnServer]:
    """A PostgreSQL on the loopback interface."""
    with own_server() as server:
        yield server


def _check_a_day(image: Containers, databases: OwnServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As the Compose file starts them: its commands, variables and mounts; the port is a free one."""
    web = free_port()
    file = compose.read(_variables(databases))
    volumes: dict[str, Path] = {}
    for name, target in compose.volume_targets(file).items():
        volumes[name] = tmp_path_factory.mktemp(name)
        options = ((file["volumes"][name] or {}).get("driver_opts") or {}).get("o", "")
        _prepare_volume(volumes[name], options, image.root / target.lstrip("/"))
        for above in volumes[name].parents[:2]:
            above.chmod(0o755)

    def moved(command: list[str]) -> list[str]:
        return [part.replace("3000", str(web)) for part in command]

    def service(name: str) -> Service:
        command = moved(file["services"][name]["command"])
        mounts = []
        for volume in file["services"][name].get("volumes", []):
            source, target, *options = volume.split(":")
            mounts.append(Mount(volumes[source], target, read_only=options == ["ro"]))
        for config in file["services"][name].get("configs", []):
            source = file["configs"][config["source"]]["file"]
            mounts.append(Mount(compose.FOLDER / source, config["target"]))
        image.make_mount_points(mounts)
        return command, dict(file["services"][name]["environment"]), mounts

    assert "All databases are ready" in image.run("db-init", *service("db-init"))
    generate_input(
        _dsn(databases, Purpose.INPUT_WRITER), episodes=60, seed=1, first=day(1), last=day(1),
        history_days=3, report=lambda *_: None,
    )  # fmt: skip
    with ExitStack() as stack:

        def start(name: str) -> Callable[[], bool]:
            process = stack.enter_context(image.started(name, *service(name)))
            return lambda: process.poll() is None

        running = {"code-location": start("code-location")}
        _, *probe = file["services"]["code-location"]["healthcheck"]["test"]
        healthy = partial(_passes, image, probe, service("code-location"))
        _eventually(healthy, running, image, 120)
        for name in ("daemon", "webserver", "worker"):
            running[name] = start(name)
        _eventually(lambda: _is_well(web), running, image, 180)
        _eventually(lambda: "is ready" in image.printed("worker"), running, image, 120)
        _, variables, mounts = service("code-location")
        said = image.run("run", ["episodes", "run", str(day(1)), "--workers", "0"], variables, mounts)
        with psycopg.connect(_dsn(databases, Purpose.CONSUMER)) as consumer:
            rows = consumer.execute("SELECT count(*) FROM published.results").fetchone()
        assert rows is not None
        assert rows[0] > 0, said
        for name in ("code-location", "daemon", "webserver"):
            _, *probe = file["services"][name]["healthcheck"]["test"]
            check = partial(_passes, image, moved(probe), service(name))
            _eventually(check, running, image, 180)
        assert all(each() for each in running.values())
    # Told to end, the worker has finished and said so.
    assert "has stopped" in image.printed("worker")


def _variables(server: OwnServer) -> dict[str, str]:
    named = {purpose.setting: _dsn(server, purpose) for purpose in Purpose}
    return compose.example() | named | {
        "EPISODES_ADMIN_DSN": server.admin_dsn,
        "EPISODES_LAKE_URL": "/lake",
        "WEB_GATEWAY": "127.0.0.1",
    }  # fmt: skip


def _prepare_volume(volume: Path, options: str, mounted_over: Path) -> None:
    """Give a new volume the owner and the mode that Docker gives it.

    Those of its options, or else of the image's folder that it is mounted over, or else root's.
    """
    given = dict(each.split("=") for each in options.split(",") if "=" in each)
    uid, gid, mode = 0, 0, 0o755
    if "uid" in given:
        uid, gid, mode = int(given["uid"]), int(given["gid"]), int(given["mode"], 8)
    elif mounted_over.is_dir():
        folder = mounted_over.stat()
        uid, gid, mode = folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode)
    os.chown(volume, uid, gid)
    volume.chmod(mode)


def _dsn(server: OwnServer, purpose: Purpose) -> str:
    return f"postgresql://{purpose.embedded_role}:secret-{purpose}@{server.address}/{purpose.database}"


def _is_well(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=10).text == "ok"
    except httpx2.HTTPError:
        return False


def _passes(image: Containers, command: list[str], service: Service) -> bool:
    with image.started("probe", command, service[1], service[2]) as process:
        return process.wait(120) == 0


def _eventually(
    check: Callable[[], bool], running: dict[str, Callable[[], bool]], image: Containers, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        ended = [name for name, runs in running.items() if not runs()]
        assert not ended, image.printed(ended[0])[-5_000:]
        assert time.monotonic() < deadline, {name: image.printed(name)[-2_000:] for name in running}
        time.sleep(0.5)
