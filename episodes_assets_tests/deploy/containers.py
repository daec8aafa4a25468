"""Building the image with buildah from Debian, and running it, without a registry and without a daemon.

The base is made of Debian's packages by mmdebstrap, from where this machine gets its own. A container is a
chroot in namespaces of its own: its root file system is read-only, its user is the image's, and it gets no
variable but its own. The network is the machine's, so that it reaches a database on the loopback interface.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from episodes_assets.settings import PROJECT_FOLDER

_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources")
# As in Debian's own slim images.
_LEFT_OUT = ("man", "doc", "info", "locale")
_BASE = "localhost/episodes-base:test"
IMAGE = "localhost/episodes:test"


def why_not() -> str | None:
    """Why this machine cannot build and run the image; None where it can."""
    missing = [name for name in ("buildah", "mmdebstrap", "unshare", "setpriv") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)}: not installed (Debian's packages buildah, mmdebstrap and util-linux)"
    if os.geteuid() != 0:
        return "only root may mount what a container needs"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else "this machine refuses namespaces"


@dataclass(frozen=True)
class Layer:
    """A layer of the image: what made it, and how large it is."""

    made_by: str
    megabytes: float


@dataclass(frozen=True)
class Builder:
    """buildah with storage of its own.

    Attributes:
        folder: For all that it keeps.
        driver: The storage's.
    """

    folder: Path
    driver: str

    @classmethod
    def open(cls, folder: Path) -> "Builder":
        """A builder with the quickest storage that the machine has."""
        for driver in ("overlay", "vfs"):
            builder = cls(folder / driver, driver)
            if builder._run("info", check=False).returncode == 0:
                return builder
        raise AssertionError("buildah has no storage here")

    def make_base(self) -> None:
        """Make an image of Debian alone, of the release of this machine."""
        archive = self.folder / "base.tar"
        sources = [path for path in _SOURCES if Path(path).is_file()]
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
        subprocess.run(
            ["mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--include=usr-is-merged",
             "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", *excluded,
             _release(), str(archive), *sources],
            check=True, timeout=1_800,
        )  # fmt: skip
        container = self._run("from", "scratch").stdout.strip()
        self._run("add", "--quiet", container, str(archive), "/")
        self._run("commit", "--quiet", container, _BASE)
        self._run("rm", container)
        archive.unlink()

    def build(self) -> None:
        """Build the image of the checkout."""
        pip = self.folder / "pip.conf"
        pip.write_text("[global]\ncert = /run/certificates.crt\n")
        certificates = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
        self._run(
            "build", "--isolation=chroot", "--layers", f"--build-arg=BASE={_BASE}",
            f"--volume={pip}:/etc/pip.conf:ro", f"--volume={certificates}:/run/certificates.crt:ro",
            f"--tag={IMAGE}", str(PROJECT_FOLDER),
        )  # fmt: skip

    def configuration(self) -> dict[str, Any]:
        """What the image says of how it is run."""
        inspected = json.loads(self._run("inspect", "--type=image", IMAGE).stdout)
        return dict(inspected["OCIv1"]["config"])

    def layers(self) -> list[Layer]:
        """The image's layers, the base's first."""
        inspected = json.loads(self._run("inspect", "--type=image", IMAGE).stdout)["OCIv1"]
        made = [each["created_by"] for each in inspected["history"] if not each.get("empty_layer")]
        kept = json.loads((self.folder / "storage" / f"{self.driver}-layers" / "layers.json").read_text())
        # The layers that containers write to have none.
        sizes = {each["diff-digest"]: each["diff-size"] for each in kept if "diff-digest" in each}
        return [
            Layer(by, sizes[digest] / 1e6)
            for by, digest in zip(made, inspected["rootfs"]["diff_ids"], strict=True)
        ]

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """The image's root file system, while the block lasts."""
        container = self._run("from", "--pull-never", IMAGE).stdout.strip()
        try:
            yield Path(self._run("mount", container).stdout.strip())
        finally:
            self._run("umount", container)
            self._run("rm", container)

    def remove(self) -> None:
        """Remove all images, and the folder."""
        self._run("rm", "--all", check=False)
        self._run("rmi", "--all", "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = [
            f"--root={self.folder}/storage",
            f"--runroot={self.folder}/run",
            f"--storage-driver={self.driver}",
        ]
        done = subprocess.run(
            ["buildah", *storage, *arguments], capture_output=True, text=True, timeout=3_600, check=False
        )
        assert done.returncode == 0 or not check, done.stderr[-4_000:]
        return done


def _release() -> str:
    """The name of this machine's Debian."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))


@dataclass(frozen=True)
class Mount:
    """A folder or a file of the machine, as a container sees it."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Containers:
    """Containers of one image.

    Attributes:
        root: The image's root file system.
        configuration: What the image says of how it is run.
        logs: A folder for what they print.
    """

    root: Path
    configuration: Mapping[str, Any]
    logs: Path

    def run(
        self, name: str, command: Sequence[str], variables: Mapping[str, str], mounts: Sequence[Mount] = (),
        *, timeout: float = 300,
    ) -> str:  # fmt: skip
        """Run a container to its end, which must be well; what it has printed."""
        with self.started(name, command, variables, mounts) as process:
            code = process.wait(timeout)
            assert code == 0, self.printed(name)
        return self.printed(name)

    @contextmanager
    def started(
        self, name: str, command: Sequence[str], variables: Mapping[str, str], mounts: Sequence[Mount] = ()
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """A container while the block lasts; then it is told to end, as by its runtime."""
        user = self.configuration["User"]
        environment = dict(each.split("=", 1) for each in self.configuration["Env"]) | dict(variables)
        script = self._script(mounts, user)
        argv = [
            "unshare",
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            script,
            "sh",
        ]
        entry = ["/usr/sbin/chroot", f"--userspec={user}", str(self.root),
                 "/usr/bin/setpriv", "--no-new-privs", *self.configuration["Entrypoint"]]  # fmt: skip
        with (self.logs / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                [*argv, *entry, *command], env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            _stop(process)

    def printed(self, name: str) -> str:
        """What a container has printed so far."""
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def _script(self, mounts: Sequence[Mount], user: str) -> str:
        """What is mounted, in the container's own namespace, before the image's program is started."""
        uid, _, gid = user.partition(":")
        root = self.root
        private = f"mode=0700,uid={uid},gid={gid},nosuid,nodev"
        lines = [
            "set -e",
            "/usr/bin/mount --make-rprivate /",
            f"/usr/bin/mount --bind {root} {root}",
            f"/usr/bin/mount -t tmpfs -o {private} tmpfs {root}/tmp",
            f"/usr/bin/mount -t tmpfs -o {private} tmpfs {root}/var/lib/episodes",
            f"/usr/bin/mount -t proc proc {root}/proc",
            f"/usr/bin/mount --rbind /dev {root}/dev",
        ]
        for each in mounts:
            lines.append(f"/usr/bin/mount --bind {each.source} {root}{each.target}")
            if each.read_only:
                lines.append(f"/usr/bin/mount -o remount,bind,ro {root}{each.target}")
        lines.append(f"/usr/bin/mount -o remount,bind,ro {root}")
        return "\n".join([*lines, 'exec "$@"'])

    def make_mount_points(self, mounts: Sequence[Mount]) -> None:
        """Make what is mounted over, as a container's runtime does."""
        for each in mounts:
            target = self.root / each.target.lstrip("/")
            if each.source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Tell the container's first process to end, as its runtime does, and wait for it."""
    with contextlib.suppress(OSError, StopIteration):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(next(iter(children))), signal.SIGTERM)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.wait()
