"""Files and streams that a user names: written whole, never opened anew, read to their end."""

import contextlib
import fcntl
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from episodes_assets.errors import BadFile, EpisodesError
from episodes_assets.user_files import names_a_stream, read_whole, user_path, written_whole

pytestmark = pytest.mark.process

WRITE = (
    "import sys; from pathlib import Path; from episodes_assets.user_files import written_whole\n"
    "with written_whole(Path(sys.argv[1])) as file: file.write(sys.argv[2].encode())"
)
STREAMS = [
    "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1", "/dev/fd/../fd/1",
]  # fmt: skip
TAKEN_OVER = "from episodes_assets import descriptors; descriptors.take_over()\n"


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


def test_a_stream_by_the_names_of_process_and_thread(tmp_path: Path) -> None:
    by_ids = WRITE.replace(
        "sys.argv[1]", "sys.argv[1].format(pid=os.getpid(), tid=threading.get_native_id())"
    )
    in_thread = (
        "import os, threading\ndef write():\n"
        + "\n".join(f"    {line}" for line in by_ids.splitlines())
        + "\nthread = threading.Thread(target=write)\nthread.start()\nthread.join()"
    )
    paths = [
        "/proc/{pid}/fd/1",
        "/proc/{tid}/fd/1",
        "/proc/self/task/{tid}/fd/1",
        "/proc/{pid}/task/{pid}/fd/1",
    ]
    for path in paths:
        (tmp_path / "keep").write_text("old\n")
        with (tmp_path / "keep").open("ab") as keep:
            subprocess.run([sys.executable, "-c", in_thread, path, "new"], stdout=keep, check=True)
        assert (tmp_path / "keep").read_text() == "old\nnew"


def test_what_only_looks_like_a_descriptor(tmp_path: Path) -> None:
    (tmp_path / "fd").mkdir()
    (tmp_path / "fd" / "1").touch()
    (tmp_path / "status").write_text(f"Tgid:\t{os.getpid()}\n")
    (tmp_path / "loop").symlink_to("loop")
    paths = [tmp_path / "fd" / "1", Path("/dev/fd/\u0661"), Path("/proc/self/fd/01"), tmp_path / "loop" / "x"]
    assert not any(map(names_a_stream, paths))
    for path in paths[1:]:
        with pytest.raises(BadFile):
            read_whole(path)


@pytest.mark.parametrize("name", ["./-", "-/", ".//-"])
def test_a_file_that_is_called_like_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert user_path("-") == Path("-")
    assert user_path("./x") == Path("x")
    assert user_path(name) == tmp_path / "-"


@pytest.mark.parametrize("stream", ["-", "/dev/stdin"])
def test_standard_input_that_does_not_wait_is_read_to_its_end(stream: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    argv = [sys.executable, "-c", TAKEN_OVER + READ, stream]
    with subprocess.Popen(argv, stdin=reading, stdout=subprocess.PIPE, text=True) as process:
        with os.fdopen(writing, "wb", buffering=0) as writer:
            for part in (b"first\n", b"second\n"):
                writer.write(part)
                while unread(reading) and process.poll() is None:
                    pass
        os.close(reading)
        assert process.stdout is not None
        assert process.stdout.read() == "first\nsecond\n"
        assert process.wait() == 0


def test_a_line_of_standard_input_that_does_not_wait() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    argv = [sys.executable, "-c", TAKEN_OVER + "import sys; print(sys.stdin.readline())"]
    with subprocess.Popen(argv, stdin=reading, stdout=subprocess.PIPE, text=True) as process:
        with os.fdopen(writing, "wb", buffering=0) as writer:
            for part in (b"a pass", b"word\n"):
                writer.write(part)
                while unread(reading) and process.poll() is None:
                    pass
        os.close(reading)
        assert process.stdout is not None
        assert process.stdout.read() == "a password\n\n"


PRINT = "import sys; from episodes_assets.cli.console import out; out.print(sys.argv[2], soft_wrap=True)"


@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
@pytest.mark.parametrize(("script", "stream"), [(WRITE, "-"), (WRITE, "/dev/stdout"), (PRINT, "")])
def test_standard_output_that_does_not_wait_is_written_whole(
    script: str, stream: str, unbuffered: list[str]
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    argv = [sys.executable, *unbuffered, "-c", TAKEN_OVER + script, stream, "x" * 100_000]
    with subprocess.Popen(argv, stdout=writing) as process:
        os.close(writing)
        while unread(reading) < size and process.poll() is None:
            pass
        with os.fdopen(reading, "rb") as reader:
            assert reader.read().strip() == b"x" * 100_000
        assert process.wait() == 0


def unread(pipe: int) -> int:
    """How many bytes there are to be read."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


@pytest.mark.parametrize("stream", ["-", "/dev/stdout", "/dev/fd/1"])
def test_data_for_closed_standard_output_is_an_error(stream: str) -> None:
    argv = ["sh", "-c", '"$0" "$@" >&-', sys.executable, "-c", TAKEN_OVER + WRITE, stream, "x"]
    ended = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert "BadFile: standard output is closed" in ended.stderr


@pytest.mark.parametrize("stream", ["-", "/dev/stdin"])
def test_closed_standard_input_is_no_empty_file(stream: str) -> None:
    argv = ["sh", "-c", '"$0" "$@" <&-', sys.executable, "-c", TAKEN_OVER + READ, stream]
    ended = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert "BadFile: standard input is closed" in ended.stderr


def test_only_what_the_process_was_given_can_be_named(tmp_path: Path) -> None:
    own = f"own = [open({str(tmp_path / 'own')!r}, 'a+b', 0) for _ in range(9)]\n"
    argv = [sys.executable, "-c", TAKEN_OVER + own + WRITE, "/dev/fd/4", "x"]
    ended = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
    assert "BadFile: /dev/fd/4 cannot be written (Bad file descriptor)" in ended.stderr
    assert (tmp_path / "own").read_bytes() == b""
    argv = [sys.executable, "-c", TAKEN_OVER + own + READ, "/dev/fd/4"]
    ended = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
    assert "BadFile: /dev/fd/4 cannot be read (Bad file descriptor)" in ended.stderr
    with (tmp_path / "given").open("wb") as given:
        path = f"/dev/fd/{given.fileno()}"
        argv = [sys.executable, "-c", TAKEN_OVER + own + WRITE, path, "x"]
        subprocess.run(argv, pass_fds=[given.fileno()], check=True)
    assert (tmp_path / "given").read_bytes() == b"x"
