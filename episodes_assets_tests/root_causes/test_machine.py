"""What the machine refuses: memory, rights, files, threads, names; and a process that it kills."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.errors import BadFile, DiskFull, EpisodesError
from episodes_assets.failures import describe_exit, explain, name_defect
from episodes_assets.worker.compute import ComputationDied, ComputeProcess
from episodes_assets_tests.support.failed_steps import assert_plain, step_failure, the_error
from episodes_assets_tests.support.invoke import refusal
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

ORDINARY = "nobody"


def explained_in_a_child(limits: str, code: str) -> str:
    """What a process that ran into its own limits says."""
    program = f"""
        import resource, sys, threading
        from pathlib import Path
        import pyarrow as pa
        from episodes_assets.failures import explain
        resource.setrlimit({limits})
        try:
            {code}
        except BaseException as error:
            print(type(explain(error)).__name__, explain(error))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("code", ["bytes(1 << 40)", "pa.allocate_buffer(1 << 40)"])
def test_memory(code: str) -> None:
    said = explained_in_a_child("resource.RLIMIT_AS, (4 << 30, 4 << 30)", code)
    assert said.startswith("OutOfMemory this process is out of memory (")
    assert "run fewer workers" in said


def test_open_files() -> None:
    code = "files = [open('/dev/null') for _ in range(100)]"
    said = explained_in_a_child("resource.RLIMIT_NOFILE, (50, 50)", code)
    assert said == (
        "LimitReached this process may open no more files (Too many open files: /dev/null): raise its limit "
        "(`ulimit -n`)\n"
    )


@pytest.mark.slow
def test_memory_that_runs_out_in_a_command(system: System) -> None:
    system.generate(day(1), day(1), episodes=200)
    file = system.home / "views.csv"
    line = "1,5,2018-03-01T10:00:00Z,60,true\n"
    file.write_text("epid,viewer_id,viewed_at,seconds_watched,completed\n" + line * 2_000_000)
    limited = ["prlimit", f"--data={600 << 20}", *episodes_argv("input", "load", "--viewings", str(file))]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    said = the_error(done)
    assert "this process is out of memory" in said
    log = system.home / "logs" / "errors.log"
    assert f"(the traceback is in {log})" in said
    assert "MemoryError" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_computation_that_the_kernel_kills() -> None:
    async def compute() -> None:
        process = ComputeProcess(1024)
        try:
            await process.run(30, kill_myself)
        finally:
            process.close()

    with pytest.raises(
        ComputationDied, match=r"it was killed \(SIGKILL; if nobody did, .* ran out of memory"
    ):
        asyncio.run(compute())


def test_how_a_process_ended() -> None:
    assert describe_exit(3) == "ended with 3"
    assert describe_exit(-signal.SIGTERM) == "was ended by SIGTERM"
    assert "ran out of memory: see `dmesg`" in describe_exit(-signal.SIGKILL)
    assert describe_exit(-1000) == "was ended by signal 1000"


def as_ordinary_user(*argv: str) -> list[str]:
    """A command line as a user who is not root, whom rights bind."""
    if os.geteuid() != 0:
        return list(argv)
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv to become another user with")
    user = pwd.getpwnam(ORDINARY)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *argv]


@pytest.fixture
def for_others(tmp_path: Path) -> Path:
    """A folder that other users may reach, below those of this test's alone."""
    folder = Path("/var/tmp") / f"episodes-{os.getpid()}-{tmp_path.name}"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    return folder


@pytest.mark.long
def test_a_folder_that_this_user_may_not_write(for_others: Path) -> None:
    program = textwrap.dedent(f"""
        import datetime as dt
        from episodes_assets.lake.drops import Drops
        try:
            with Drops({str(for_others)!r} + "/lake").writer(dt.date(2018, 3, 1)):
                pass
        except Exception as error:
            print(type(error).__name__, error)
    """)
    for_others.chmod(0o555)
    try:
        done = subprocess.run(
            as_ordinary_user(sys.executable, "-c", program), capture_output=True, text=True, check=False
        )
    finally:
        shutil.rmtree(for_others)
    if "Permission denied" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("other users may not run this environment's Python")
    assert done.stdout.startswith(
        f"AccessDenied this user may not read or write there ({for_others}/lake/episodes: Permission denied: "
    ), done.stderr
    assert "`chown`" in done.stdout


@pytest.mark.long
def test_a_run_whose_lake_lies_in_a_file(system: System, tmp_path: Path) -> None:
    """Where there should be a folder."""
    system.generate(day(1), day(1))
    file = tmp_path / "file"
    file.touch()
    said = the_error(
        system.cli("run", "2018-03-01", "--workers", "0", env={"EPISODES_LAKE_URL": str(file / "x")})
    )
    assert "a file or folder is missing" in said
    assert str(file) in said
    assert said == f"error: {step_failure(system, 1)}"


@pytest.mark.long
def test_a_drop_that_is_damaged(system: System) -> None:
    system.generate(day(1), day(1))
    system.plan(day(1))
    file = Path(system.settings.lake, "episodes", system.drops.require(day(1)).episodes.path)
    file.write_bytes(file.read_bytes()[:40])
    said = the_error(system.cli("run", "2018-03-01", "--workers", "0"))
    assert f"{file} was cut or changed" in said
    assert "restore the lake from a backup" in said


def test_a_file_that_cannot_be_read_is_not_called_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "views.parquet").write_bytes(b"no Parquet")
    assert isinstance(refusal("input", "load", "--viewings", str(tmp_path / "views.parquet")), BadFile)


@pytest.mark.slow
def test_a_defect_is_named_and_its_traceback_kept(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    program = textwrap.dedent("""
        import sys
        from episodes_assets.cli import app, db
        def fail(*_):
            try:
                {}["key"]
            except KeyError as error:
                raise RuntimeError("wrapped") from error
        db.read_status = fail
        sys.argv = ["episodes", "db", "status"]
        app.invoke()
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    log = system.home / "logs" / "errors.log"
    assert done.returncode == 1
    assert done.stderr == f"error: KeyError: 'key' (the traceback is in {log})\n"
    assert 'raise RuntimeError("wrapped") from error' not in done.stderr
    assert "RuntimeError: wrapped" in log.read_text()


def test_errors_within_errors() -> None:
    full = OSError(28, "No space left on device")

    def chained(outer: Exception, inner: BaseException) -> Exception:
        outer.__cause__ = inner
        return outer

    for error in (
        chained(ValueError("x"), full),
        chained(ValueError("x"), chained(KeyError("y"), full)),
        ExceptionGroup("several", [ValueError("x"), chained(KeyError("y"), full)]),
        chained(ValueError("x"), ExceptionGroup("several", [TimeoutError(), full])),
    ):
        found = explain(error)
        assert isinstance(found, DiskFull), error
        assert_plain(str(found))
    foreseen = BadFile("it is bad", "fix it")
    assert explain(ExceptionGroup("several", [full, chained(ValueError("x"), foreseen)])) is foreseen

    # While one was handled, another was raised: of a missing file, that says nothing.
    defect = ValueError("x")
    defect.__context__ = FileNotFoundError(2, "No such file or directory")
    assert explain(defect) is None
    assert name_defect(chained(RuntimeError("y"), defect)) == "ValueError: x"
    defect.__context__ = full
    assert isinstance(explain(defect), EpisodesError)
