"""The labs of a home: where they are, what is on record of each, and its settings, which lead to no source.

A lab is a home of its own below `labs`: an embedded PostgreSQL and a lake, both stamped `lab-NAME`. Beside it
there is the bundle of a `clone`, until it is loaded: it belongs to the lab, also before there is one. A
process that works in a lab gets its settings from here: no DSN, no URL, no secret and no client of OpenID
Connect, whatever the environment or `.env` have (`isolation.py`).
"""

import datetime as dt
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from episodes_assets.errors import BadLab, BundleDamaged, LabExists, LabInUse, NoSuchLab
from episodes_assets.lab.isolation import limits_jobs, without_source
from episodes_assets.lab.manifest import LOCK, MANIFEST, discard, parse_manifest, read_begun
from episodes_assets.postgres import embedded
from episodes_assets.private_files import make_folder, open_file, try_lock, write_file
from episodes_assets.settings import Settings, load_settings, with_settings

if TYPE_CHECKING:
    from episodes_assets.lab.bundle import Bundle  # with Arrow

LABS = "labs"
FACTS = "lab.json"
# With `lab-` before it, it is the name of an environment, which has at most 31 characters.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,26}")
_PREFIX = "lab-"
_UP_LOCK, _LOAD_LOCK = "up.lock", "load.lock"
_BUNDLE = re.compile(rf"\.({_NAME.pattern})\.bundle")


@dataclass(frozen=True)
class Lab:
    """A lab.

    Attributes:
        name: Its name.
        home: Its home.
        facts: Its record: `begun_at`, `loaded_at` (None until it is loaded) and `has_state`.
        manifest: Of the bundle that it is loaded from.
    """

    name: str
    home: Path
    facts: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def environment(self) -> str:
        """Its stamp."""
        return f"{_PREFIX}{self.name}"

    @property
    def is_loaded(self) -> bool:
        """Whether it was loaded to its end."""
        return self.facts["loaded_at"] is not None

    @property
    def has_state(self) -> bool:
        """Whether it has the source's accumulated state, or a history that begins with its own first day."""
        return bool(self.facts["has_state"])

    @property
    def begun_at(self) -> dt.datetime:
        """When it was begun."""
        return dt.datetime.fromisoformat(self.facts["begun_at"])

    @property
    def days(self) -> list[dt.date]:
        """Its days, in order."""
        return sorted(map(dt.date.fromisoformat, self.manifest["days"]))

    def settings(self) -> Settings:
        """The settings of a process that works in it; limits of jobs are the environment's."""
        overrides = {
            name: field.get_default(call_default_factory=True)
            for name, field in Settings.model_fields.items()
            if not limits_jobs(name)
        }
        home, lake = self.home.resolve(), self.home.resolve() / "lake"
        own = {"home": home, "environment": self.environment, "lake_url": str(lake), "late_days": 0}
        return load_settings(**{**overrides, **own})

    def environment_variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment of a process that works in it.

        Args:
            environment: This process's own.
        """
        home = self.home.resolve()
        own = {
            "EPISODES_HOME": str(home),
            "EPISODES_ENVIRONMENT": self.environment,
            "EPISODES_LAKE_URL": str(home / "lake"),
            # Its input is empty, so nothing arrives late.
            "EPISODES_LATE_DAYS": "0",
        }
        return with_settings(without_source(environment), own)

    def size(self) -> int:
        """Its bytes on disk, as far as this user may see them, with those of a bundle of `clone`."""
        database = self.home / "postgres"
        bundle = _bundle_folder(self.home.parent, self.name)
        return _size([self.home, bundle, *([database.resolve()] if database.is_symlink() else [])])

    @contextmanager
    def lock_loading(self) -> Iterator[None]:
        """Exclude other processes from loading it until the block ends.

        Raises:
            LabInUse: If another process loads it.
        """
        with open_file(self.home / _LOAD_LOCK, "a") as file:
            if not try_lock(file):
                raise LabInUse(f"another process loads the lab {self.name}", "let it finish, or interrupt it")
            yield

    def mark_loaded(self) -> None:
        """Record that it is loaded."""
        _write_facts(self.home, {**self.facts, "loaded_at": _now()})


@dataclass(frozen=True)
class ClonedBundle:
    """The bundle of a `clone`, from its beginning until the lab is loaded from it.

    Attributes:
        name: The lab's name.
        folder: Where it is.
        record: As `read_begun` gives it; empty when it cannot be read.
    """

    name: str
    folder: Path
    record: Mapping[str, Any]

    @property
    def is_complete(self) -> bool:
        """Whether all is taken."""
        return (self.folder / MANIFEST).exists()

    @property
    def begun_at(self) -> dt.datetime | None:
        """When it was begun; None when that cannot be read."""
        return dt.datetime.fromisoformat(self.record["taken_at"]) if self.record else None

    @property
    def days(self) -> list[dt.date]:
        """The days that are taken, in order; none when that cannot be read."""
        return sorted(map(dt.date.fromisoformat, self.record["request"]["days"])) if self.record else []

    def size(self) -> int:
        """Its bytes on disk, as far as this user may see them."""
        return _size([self.folder])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other processes from taking it, and from deleting it, until the block ends.

        Raises:
            LabInUse: If another process does.
        """
        with open_file(self.folder / LOCK, "a+") as file:
            if not try_lock(file):
                raise LabInUse(f"another process takes the lab {self.name}", "let it finish, or interrupt it")
            yield


def _size(places: Iterable[Path]) -> int:
    size = 0
    for folder, _, files in (each for place in places for each in os.walk(place)):
        for name in files:
            with suppress(FileNotFoundError):  # somebody may be at work there
                found = os.lstat(Path(folder, name))
                size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size


def _bundle_folder(labs: Path, name: str) -> Path:
    return labs / f".{name}.bundle"


def cloned_bundle(settings: Settings, name: str) -> ClonedBundle:
    """The bundle of a `clone`, whether it is there or not.

    Args:
        settings: Of the home.
        name: The lab's name, as `require_name` returns it.
    """
    folder = _bundle_folder(labs_folder(settings).resolve(), name)
    return ClonedBundle(name, folder, read_begun(folder))


def all_cloned_bundles(settings: Settings) -> Iterator[ClonedBundle]:
    """The bundles of clones of which no lab was begun yet, by name.

    Raises:
        OSError: If the folder of the labs cannot be read.
    """
    folder = labs_folder(settings)
    found = (_BUNDLE.fullmatch(path.name) for path in (folder.iterdir() if folder.is_dir() else ()))
    for name in sorted(each[1] for each in found if each):
        if not (folder / name / FACTS).exists():
            yield cloned_bundle(settings, name)


def labs_folder(settings: Settings) -> Path:
    """The folder of the labs of a home."""
    return settings.home / LABS


def require_name(name: str) -> str:
    """A name that a lab can have.

    Raises:
        BadLab: If it cannot.
    """
    if not _NAME.fullmatch(name):
        raise BadLab(
            f"{name!r} is no name of a lab",
            "use up to 27 small letters, digits, - and _, beginning with a letter or a digit",
        )
    return name


def begin_lab(settings: Settings, name: str, bundle: "Bundle", *, has_state: bool = True) -> Lab:
    """A lab to be loaded from a bundle, or one whose loading was interrupted.

    Args:
        settings: Of the home.
        name: The lab's name.
        bundle: The bundle.
        has_state: Whether it is to have the source's accumulated state.

    Raises:
        BadLab: If it cannot have that name.
        LabExists: If there is one of that name, loaded, or begun with another bundle or option.
    """
    home = labs_folder(settings) / require_name(name)
    if (home / FACTS).exists():
        lab = _read(home)
        if lab.manifest["digest"] != bundle.manifest["digest"]:
            raise LabExists(
                f"there is a lab {name} of another bundle",
                f"choose another name, or `episodes lab drop {name}`",
            )
        if lab.is_loaded:
            raise LabExists(
                f"there is a lab {name} already", f"choose another name, or `episodes lab drop {name}`"
            )
        if lab.has_state != has_state:
            raise LabExists(
                f"the lab {name} was begun {'with' if lab.has_state else 'without'} the accumulated state",
                f"give the same options to finish it, or `episodes lab drop {name}`",
            )
        return lab
    make_folder(home)
    if any(path.name not in (MANIFEST,) and not path.name.endswith(".part") for path in home.iterdir()):
        raise LabExists(f"{home} is in the way of a lab {name}", "choose another name, or remove that folder")
    write_file(home / MANIFEST, (bundle.folder / MANIFEST).read_text(encoding="utf-8"))
    _write_facts(home, {"name": name, "begun_at": _now(), "loaded_at": None, "has_state": has_state})
    return _read(home)


def find_lab(settings: Settings, name: str) -> Lab:
    """A lab, loaded or not.

    Raises:
        NoSuchLab: If there is none of that name, or it is still being taken.
    """
    home = labs_folder(settings) / name
    if not _NAME.fullmatch(name) or not (home / FACTS).exists():
        if _NAME.fullmatch(name) and cloned_bundle(settings, name).folder.exists():
            raise NoSuchLab(
                f"the lab {name} is still being taken",
                f"run the same `episodes lab clone` to its end, or give it up by `episodes lab drop {name}`",
            )
        raise NoSuchLab(f"there is no lab {name!r}", "`episodes lab list` shows those that there are")
    return _read(home)


def require_loaded(settings: Settings, name: str) -> Lab:
    """A lab that is completely loaded.

    Raises:
        NoSuchLab: If there is none of that name, or it is not completely loaded.
    """
    lab = find_lab(settings, name)
    if not lab.is_loaded:
        raise NoSuchLab(
            f"the lab {name} is not completely loaded",
            f"run the same `episodes lab load` or `clone` with --name {name} again: it resumes",
        )
    return lab


def all_labs(settings: Settings) -> Iterator[Lab]:
    """The labs of a home, the oldest first.

    Raises:
        OSError: If one cannot be read.
    """
    folder = labs_folder(settings)
    # Not by `glob`, which takes a folder that this user may not read for an empty one.
    homes = [home for home in folder.iterdir() if (home / FACTS).exists()] if folder.is_dir() else []
    yield from sorted((_read(home) for home in homes), key=lambda lab: (lab.begun_at, lab.name))


def drop_lab(settings: Settings, name: str) -> None:
    """Delete a lab with all that it has, or what a `clone` has taken for one.

    Raises:
        NoSuchLab: If there is neither.
        LabInUse: If a process works in it, or takes it.
        OSError: If something cannot be removed.
    """
    bundle = cloned_bundle(settings, name) if _NAME.fullmatch(name) else None
    if bundle is None or not bundle.folder.is_dir():
        _drop_home(find_lab(settings, name))
        return
    with bundle.lock():
        if (labs_folder(settings) / name / FACTS).exists():
            _drop_home(find_lab(settings, name))
        discard(bundle.folder)


def _drop_home(lab: Lab) -> None:
    with lab.lock_loading():
        pass
    if (up := lab.home / _UP_LOCK).exists():
        with open_file(up, "a") as file:
            if not try_lock(file):
                raise LabInUse(f"`episodes lab up {lab.name}` is running", "stop it first")
    _write_facts(lab.home, {**lab.facts, "loaded_at": None})
    if not embedded.discard(lab.home):
        _write_facts(lab.home, lab.facts)
        raise LabInUse(f"a process works in the lab {lab.name}", "let it end, or end it")
    # Its record goes last, so that an interrupted deletion can be repeated.
    for path in [each for each in lab.home.iterdir() if each.name not in (FACTS, MANIFEST)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name_of_record in (FACTS, MANIFEST):
        (lab.home / name_of_record).unlink()
    lab.home.rmdir()


def _read(home: Path) -> Lab:
    path = home / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        manifest = parse_manifest((home / MANIFEST).read_text(encoding="utf-8"), home / MANIFEST)
        return Lab(facts["name"], home, facts, manifest)
    except (ValueError, TypeError, KeyError) as error:
        raise BundleDamaged(f"{path} was changed", f"remove {home} and load the lab again") from error


def _write_facts(home: Path, facts: Mapping[str, Any]) -> None:
    write_file(home / FACTS, json.dumps(facts, indent=2))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
