"""The commands as a user meets them: help, lists, and one plain line for what cannot be had."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.errors import BadSetting, LabExists, LabInUse, NoSuchLab, ProcessFailed
from episodes_assets.lab import labs
from episodes_assets.lab.bundle import Bundle, open_bundle
from episodes_assets.lab.isolation import without_network
from episodes_assets.lab.labs import begin_lab, drop_lab
from episodes_assets.lab.request import Kind, SampleSpec, TakeRequest
from episodes_assets.lab.source import Source
from episodes_assets.lab.take import take
from episodes_assets.postgres import embedded
from episodes_assets.settings import load_settings
from episodes_assets_tests.lab.conftest import LAST, silent
from episodes_assets_tests.lab.labs_of_tests import episodes, files_of, held_server, succeeds, web_ui
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.other_user import do_as, needs_root, other_user
from episodes_assets_tests.support.system import System, throwaway

pytestmark = [pytest.mark.process, pytest.mark.long]

COMMANDS = ("take", "load", "clone", "verify", "list", "show", "drop", "replay", "up")
SMALL = TakeRequest(LAST, sample=SampleSpec(Kind.SHARE, share=0.2))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(name: str) -> None:
    shown, _ = output("lab", name, "--help")
    assert "Usage" in shown
    assert len(shown.split()) > 40


@pytest.fixture
def bundle(source: Source, tmp_path: Path) -> Bundle:
    return take(source, SMALL, tmp_path / "bundle", silent)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("take", "2018-02-28", "--to", "x"), "is before the first day"),
        (("take", "yesterday", "--to", "x"), "is not a day"),
        (("take", "2018-03-04", "--to", "x"), "2018-03-04 is not published"),
        (("take", "2018-03-03"), "--to is missing"),
        (("take", "2018-03-03", "--share", "150%", "--to", "x"), "'150%' is no share"),
        (("take", "2018-03-03", "--share", "0", "--to", "x"), "'0' is no share"),
        (("take", "2018-03-03", "--share", "half", "--to", "x"), "'half' is no share"),
        (("take", "2018-03-03", "--share", "5%", "--slowest", "3", "--to", "x"),
         "--share and --slowest exclude each other"),
        (("take", "2018-03-03", "--chunk", "7", "--to", "x"), "'7' is no chunk: spell it PLAN/CHUNK"),
        (("take", "2018-03-03", "--chunk", "999/0", "--to", "x"), "plan 999 is none of these days'"),
        (("take", "2018-03-03", "--series", "No such", "--to", "x"), "no episode is of the series 'No such'"),
        (("take", "2018-03-03", "--epids", "missing.csv", "--to", "x"), "missing.csv is not a file"),
        (("take", "2018-03-03", "--max-rows", "10", "--to", "x"), "10 are the most"),
        (("clone", "2018-03-03", "--name", "Not A Name"), "'Not A Name' is no name of a lab"),
        (("clone", "2018-03-03", "--name", "x" * 28), "is no name of a lab"),
        (("load", "nowhere", "--name", "it"), "there is no bundle in nowhere"),
        (("load", "nowhere", "--name", "../it"), "'../it' is no name of a lab"),
        (("verify", "it"), "there is no lab 'it'"),
        (("show", ".."), "there is no lab '..'"),
        (("drop", "it"), "there is no lab 'it'"),
        (("replay", "it"), "there is no lab 'it'"),
        (("up", "it"), "there is no lab 'it'"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_plainly(
    published: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refusal("lab", *arguments)
    assert says in str(error)
    assert error.hint


def test_without_its_roles_nothing_is_taken(published: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EPISODES_QUEUE_READER_DSN")
    error = refusal("lab", "take", str(LAST), "--to", "x")
    assert isinstance(error, BadSetting)
    assert "EPISODES_QUEUE_READER_DSN is not set" in str(error)


def test_an_estimate_is_printed_and_nothing_is_written(
    published: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown, _ = output("lab", "take", str(LAST), "--estimate", "--share", "5%")
    for part in ("tracked episodes", "viewings", "outcomes", "about"):
        assert part in shown
    assert list(tmp_path.iterdir()) == []


def test_epids_come_from_a_file(published: System, tmp_path: Path) -> None:
    file = tmp_path / "epids.csv"
    first, *_, last = sorted({epid for epid, *_ in published.jobs(LAST)})
    file.write_text(f"epid\n{last}\n{first}\n{last}\n1\n")
    shown, _ = output("lab", "take", str(LAST), "--epids", str(file), "--to", str(tmp_path / "bundle"))
    assert "load them with `episodes lab load" in shown.replace("\n", " ")
    found = open_bundle(tmp_path / "bundle")
    assert found.read("sample.parquet")["epid"].to_pylist() == [first, last]
    # The same again is refused, and so is another sample.
    assert "has a complete bundle already" in str(
        refusal("lab", "take", str(LAST), "--to", str(tmp_path / "bundle"))
    )


@pytest.mark.slow
def test_a_lab_from_its_beginning_to_its_end(published: System, bundle: Bundle, tmp_path: Path) -> None:
    home = tmp_path / "home"
    before = files_of(bundle.folder)
    assert "There is no lab" in succeeds("lab", "list", home=home)
    said = succeeds("lab", "load", str(bundle.folder), "--name", "small", home=home)
    assert "episodes lab verify small" in said
    assert files_of(bundle.folder) == before
    listed = succeeds("lab", "list", home=home)
    for part in ("small", str(LAST), "'development'".strip("'"), "pseudonymised", "0 min", "loaded"):
        assert part in listed
    again = episodes("lab", "load", str(bundle.folder), "--name", "small", home=home)
    assert "error: there is a lab small already: choose another name" in again.stderr
    wrong = episodes("lab", "replay", "small", "2018-03-01", home=home)
    assert f"error: the lab small does not have 2018-03-01: it has {LAST}" in wrong.stderr
    assert "small" in succeeds("lab", "drop", "small", home=home)
    assert "There is no lab" in succeeds("lab", "list", home=home)
    assert list((home / "labs").iterdir()) == []


@pytest.mark.slow
def test_a_lab_in_which_something_works_is_not_dropped(
    published: System, bundle: Bundle, tmp_path: Path
) -> None:
    settings = load_settings(home=tmp_path / "home")
    lab = begin_lab(settings, "busy", bundle)
    throwaway(lab.home)
    embedded.start(lab.home)
    with pytest.raises(LabInUse, match="a process works in the lab busy"):
        drop_lab(settings, "busy")
    assert labs.find_lab(settings, "busy")
    with pytest.raises(NoSuchLab, match="is not completely loaded"):
        labs.require_loaded(settings, "busy")


@pytest.mark.slow
def test_a_lab_is_loaded_by_one_process_at_a_time(published: System, bundle: Bundle, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home")
    lab = begin_lab(settings, "it", bundle)
    with lab.lock_loading():
        done = episodes("lab", "load", str(bundle.folder), "--name", "it", home=tmp_path / "home")
        assert done.stderr == ("error: another process loads the lab it: let it finish, or interrupt it\n")
        with pytest.raises(LabInUse, match="another process loads the lab it"):
            drop_lab(settings, "it")
    drop_lab(settings, "it")


@needs_root
def test_labs_of_another_user_are_not_taken_for_none(
    published: System, bundle: Bundle, tmp_path: Path
) -> None:
    settings = load_settings(home=tmp_path / "home")
    begin_lab(settings, "it", bundle)
    for folder in (*tmp_path.parents[:2], tmp_path, tmp_path / "home"):
        folder.chmod(0o711)
    with other_user("reader") as account, pytest.raises(PermissionError, match="labs"):
        do_as(account, lambda: [lab.name for lab in labs.all_labs(settings)])


def test_a_lab_that_is_half_deleted_is_not_worked_in(
    published: System, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(home=tmp_path / "home")
    lab = begin_lab(settings, "it", bundle)
    lab.mark_loaded()
    (lab.home / "lake").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(PermissionError):
            drop_lab(settings, "it")
    with pytest.raises(NoSuchLab, match="is not completely loaded"):
        labs.require_loaded(settings, "it")
    drop_lab(settings, "it")
    assert not lab.home.exists()


def refuse(path: Path) -> None:
    raise PermissionError(path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the labs, for commands in this process."""
    monkeypatch.setenv("EPISODES_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def interrupted_clone(source: Source, *, after: str) -> labs.ClonedBundle:
    """What a clone leaves behind that is interrupted while it takes something."""

    class Interrupted(Exception):
        pass

    def report(what: str, _done: int, _total: int) -> None:
        if what == after:
            raise Interrupted

    folder = labs.cloned_bundle(load_settings(), "it").folder
    with pytest.raises(Interrupted):
        take(source, SMALL, folder, report)
    return labs.cloned_bundle(load_settings(), "it")


def test_a_clone_that_was_given_up_is_listed_and_dropped(
    published: System, source: Source, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = interrupted_clone(source, after="viewings")
    shown, _ = output("lab", "list")
    for part in (
        "it",
        str(LAST),
        "development",
        "0.2 of the series",
        "pseudonymised",
        "0 min",
        "being taken",
    ):
        assert part in shown
    assert "the lab it is still being taken: run the same" in str(refusal("lab", "verify", "it"))
    key = clone.folder / "key"
    content, opened = key.read_text(), key.open()
    with clone.lock():
        assert "another process takes the lab it: let it finish" in str(refusal("lab", "drop", "it"))
    assert key.read_text() == content
    with monkeypatch.context() as patch:  # a deletion that is interrupted can be repeated
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(PermissionError):
            drop_lab(load_settings(), "it")
    assert opened.read() == "0" * len(content)
    assert "being taken" in output("lab", "list")[0]
    assert "The lab it is deleted" in output("lab", "drop", "it")[0]
    assert list((home / "labs").iterdir()) == []
    assert "there is no lab 'it'" in str(refusal("lab", "drop", "it"))


def test_a_clone_that_was_taken_and_not_loaded_is_listed(
    published: System, source: Source, home: Path
) -> None:
    clone = labs.cloned_bundle(load_settings(), "it")
    take(source, SMALL, clone.folder, silent)
    assert "taken, not loaded" in output("lab", "list")[0]
    (clone.folder / "manifest.json").write_text("{")
    assert "taken, not loaded" in output("lab", "list")[0]
    error = refusal("lab", "load", str(clone.folder), "--name", "it")
    assert "manifest.json was changed: `episodes lab drop it`, then run the same command again" in str(error)
    drop_lab(load_settings(), "it")
    assert list((home / "labs").iterdir()) == []


def test_a_lab_is_dropped_with_the_bundle_it_was_to_be_loaded_from(
    published: System, source: Source, home: Path
) -> None:
    settings = load_settings()
    clone = labs.cloned_bundle(settings, "it")
    lab = begin_lab(settings, "it", take(source, SMALL, clone.folder, silent))
    (lab.home / "lake").mkdir()
    shown, _ = output("lab", "list")
    assert "not completely loaded" in shown
    assert "taken, not loaded" not in shown
    assert lab.size() > clone.size() > 0
    with lab.lock_loading(), pytest.raises(LabInUse):
        drop_lab(settings, "it")
    assert (clone.folder / "manifest.json").exists()
    drop_lab(settings, "it")
    assert list((home / "labs").iterdir()) == []


def test_what_a_clone_has_taken_is_not_loaded_once_the_source_has_worked_a_day_anew(
    published: System, source: Source, home: Path
) -> None:
    take(source, TakeRequest(LAST), labs.cloned_bundle(load_settings(), "it").folder, silent)
    clone = ("lab", "clone", str(LAST), "--name", "it")
    assert ".it.bundle has another bundle: `episodes lab drop it`" in str(refusal(*clone, "--share", "50%"))
    later = "UPDATE published.days SET published_at = published_at + %s * interval '1 s' WHERE day = %s"
    published.query("results", later, [1, LAST])
    try:
        error = refusal(*clone)
    finally:
        published.query("results", later, [-1, LAST])
    assert str(error).startswith(f"the source has worked {LAST} anew since the bundle in ")
    assert error.hint == "`episodes lab drop it`, then run the same command again"


@pytest.mark.slow
def test_a_drop_that_was_interrupted_goes_on(published: System, bundle: Bundle, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home")
    lab = begin_lab(settings, "it", bundle)
    with held_server(lab.home):
        place = lab.home / "postgres"
    folder = place.readlink() if place.is_symlink() else place
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.unlink()
    drop_lab(settings, "it")
    assert not folder.exists()
    assert not lab.home.exists()


def test_a_name_that_is_taken_by_another_bundle(
    published: System, source: Source, bundle: Bundle, tmp_path: Path
) -> None:
    settings = load_settings(home=tmp_path / "home")
    begin_lab(settings, "it", bundle)
    assert begin_lab(settings, "it", bundle).name == "it"  # of the same, it goes on
    with pytest.raises(LabExists, match="the lab it was begun with the accumulated state"):
        begin_lab(settings, "it", bundle, has_state=False)
    other = take(source, TakeRequest(LAST), tmp_path / "other", silent)
    with pytest.raises(LabExists, match="there is a lab it of another bundle"):
        begin_lab(settings, "it", other)
    (settings.home / "labs" / "mine").mkdir()
    (settings.home / "labs" / "mine" / "notes").touch()
    with pytest.raises(LabExists, match="is in the way of a lab mine"):
        begin_lab(settings, "mine", bundle)


@pytest.mark.slow
def test_an_interrupt_is_one_word(published: System, tmp_path: Path) -> None:
    arguments = ("lab", "clone", str(LAST), "--days", "3", "--name", "it")
    process = subprocess.Popen(
        episodes_argv(*arguments),
        env={**os.environ, "EPISODES_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "home" / "labs" / "it" / "logs").exists():  # while it loads
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (said, process.returncode) == ("interrupted\n", 130)
    # The same command goes on.
    succeeds(*arguments, home=tmp_path / "home")
    succeeds("lab", "verify", "it", "--no-recompute", home=tmp_path / "home")
    succeeds("lab", "drop", "it", home=tmp_path / "home")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_lab_has_a_web_ui_with_a_login_of_its_own(
    published: System, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for name in ("ISSUER", "CLIENT_ID", "CLIENT_SECRET"):  # of the source's OpenID Connect
        monkeypatch.setenv(f"EPISODES_OPENID_{name}", "https://idp.example" if name == "ISSUER" else "x")
    succeeds("lab", "load", str(bundle.folder), "--name", "it", home=home)
    with web_ui("it", home, tmp_path / "up.log") as (address, password):
        with httpx2.Client(base_url=address, headers={"Origin": address}, timeout=30) as browser:
            page = browser.get("/login").text
            assert 'name="password"' in page
            assert "idp.example" not in page
            assert browser.get("/runs").status_code == 401
            answer = browser.post("/login", data={"name": "operator", "password": password, "next": "/"})
            assert answer.status_code == 303
            assert browser.get("/fleet").status_code == 200
        refused = episodes("lab", "drop", "it", home=home)
        assert refused.stderr == "error: `episodes lab up it` is running: stop it first\n"
    succeeds("lab", "drop", "it", home=home)


def test_a_system_that_lets_nothing_leave_the_network_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProcessFailed, match=r"refuses a network namespace .unshare: .* not permitted"):
        without_network()
    refusing.unlink()
    with pytest.raises(ProcessFailed, match="unshare is not installed"):
        without_network()
