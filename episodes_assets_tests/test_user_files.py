"""Files and streams that a user names: written whole, never opened anew, read to their end."""

import contextlib
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from episodes_assets.errors import BadFile, EpisodesError
from episodes_assets.user_files import names_a_stream, read_whole, written_whole

WRITE = (
    "import sys; from pathlib import Path; from episodes_assets.user_files import written_whole\n"
    "with written_whole(Path(sys.argv[1])) as file: file.write(sys.argv[2].encode())"
)
STREAMS = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]


def in_shell(script: str, folder: Path) -> None:
    """A script that finds a command `put PATH TEXT`."""
    put = f'put() {{ "{sys.executable}" -c "$PUT" "$@"; }}\n'
    subprocess.run(["bash", "-ec", put + script], env={**os.environ, "PUT": WRITE}, cwd=folder, check=True)


@pytest.mark.parametrize("stream", STREAMS)
def test_what_a_redirected_file_held_stays(tmp_path: Path, stream: str) -> None:
    (tmp_path / "keep").write_text("old\n")
    in_shell(f"put {stream} new >> keep; (put {stream} a; put {stream} b) > both", tmp_path)
    assert (tmp_path / "keep").read_text() == "old\nnew"
    assert (tmp_path / "both").read_text() == "ab"


def test_descriptors_and_links_to_them_are_streams(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/fd/3")
    in_shell(
        "exec 3> out; echo first >&3; put /dev/fd/3 second; put link third; put >(cat > piped) x", tmp_path
    )
    assert (tmp_path / "out").read_text() == "first\nsecondthird"
    assert names_a_stream(tmp_path / "link")
    (tmp_path / "3").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert not names_a_stream(tmp_path / "3")
    assert not names_a_stream(tmp_path / "loop")


@pytest.mark.parametrize("stream", STREAMS)
def test_a_socket_as_standard_output(tmp_path: Path, stream: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run([sys.executable, "-c", WRITE, stream, "all of it"], stdout=theirs.fileno(), check=True)
        theirs.close()
        assert ours.makefile("rb").read() == b"all of it"


@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/full"])
def test_a_full_disk(path: str) -> None:
    with Path("/dev/full").open("wb") as full:
        argv = [sys.executable, "-c", WRITE, path, "x"]
        result = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert f"BadFile: {path} cannot be written (No space left on device)" in result.stderr


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path, link = tmp_path / "out.csv", tmp_path / "link.csv"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path.name)
    with contextlib.suppress(KeyboardInterrupt), written_whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with written_whole(link) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.csv", "out.csv"]


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "new") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_file_that_grows_too_large_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    argv = [sys.executable, "-c", WRITE, str(path), "x" * 10_000]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    result = subprocess.run(argv, preexec_fn=limit, stderr=subprocess.PIPE, text=True, check=False)
    assert f"BadFile: {path} cannot be written (File too large)" in result.stderr
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]


def test_special_files_are_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    with written_whole(fifo) as file:
        file.write(b"through")
    reader.join(30)
    assert read == [b"through"]
    assert fifo.is_fifo()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere/x", "No such file or directory: {path}"),
        (".", "Is a directory"),
        ("file/x", "Not a directory"),
    ],
)
def test_where_nothing_can_be_written(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    with pytest.raises(EpisodesError, match="cannot be written") as error, written_whole(path):
        pass
    assert problem.format(path=path) in str(error.value)
    assert ".part" not in str(error.value)


READ = (
    "import sys; from pathlib import Path; from episodes_assets.user_files import read_whole\n"
    "sys.stdout.write(read_whole(Path(sys.argv[1])).decode())"
)


@pytest.mark.parametrize("stream", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input_is_read_where_it_stands(tmp_path: Path, stream: str) -> None:
    (tmp_path / "in").write_text("first\nsecond\n")
    script = f'(read line; "{sys.executable}" -c "$READ" {stream}) < in > out'
    subprocess.run(["bash", "-ec", script], env={**os.environ, "READ": READ}, cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_text() == "second\n"


def test_what_can_be_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(b"x" * 200_000))
    writer.start()
    assert len(read_whole(fifo)) == 200_000
    writer.join(30)
    for path in (tmp_path, tmp_path / "none", Path("/dev/zero"), fifo / "x"):
        with pytest.raises(BadFile, match="is not a file"):
            read_whole(path)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "grows"
    path.write_bytes(b"x" * 1000)
    stop = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"x" * 1_000_000)
                if file.tell() > 200_000_000:
                    file.truncate(1000)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(BadFile, match="changed while it was read"):
            list(map(read_whole, [path] * 1000))
    finally:
        stop.set()
        writer.join(30)
