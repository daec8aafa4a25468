"""What the documentation refers to exists: files and folders by their paths, pages and headings by links."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from episodes_assets.settings import PROJECT_FOLDER

PAGES = sorted([*PROJECT_FOLDER.glob("*.md"), *(PROJECT_FOLDER / "docs").glob("*.md")])
# ARCHITECTURE.md leaves the package's own name out.
ROOTS = [
    PROJECT_FOLDER,
    *(PROJECT_FOLDER / package for package in ("episodes_assets", "episodes_assets_tests")),
]
WHOLE = re.compile(r"(?:episodes_assets|episodes_assets_tests|benchmarks|docs|scripts|deploy)/[^\s`]*")
MODULE = re.compile(r"[\w/<>-]+/[\w<>-]+\.py")
FILE = re.compile(r"(?:[\w-]+/)*[\w-]+\.py")
MOST_FILES = 15  # more, and the journey of one row or request is spread over too many places


def _quoted_paths(text: str) -> Iterator[str]:
    for quoted in re.findall(r"`([^`\n]+)`", text):
        if WHOLE.fullmatch(quoted) or MODULE.fullmatch(quoted):
            yield quoted


def _exists(path: str) -> bool:
    """Whether there is a path; `<database>` in it stands for any name."""
    pattern = re.sub(r"<\w+>", "*", path).rstrip("/")
    return any(any(root.glob(pattern)) for root in ROOTS)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_path_in_a_page_exists(page: Path) -> None:
    paths = set(_quoted_paths(page.read_text(encoding="utf-8")))
    assert [path for path in sorted(paths) if not _exists(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_in_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # Inline, and as `[label]: target` at the end of a page.
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    local = {target for target in targets if "://" not in target}
    assert [target for target in sorted(local) if not _leads_somewhere(page, target)] == []


def _leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return file.exists() and (not anchor or anchor in _anchors(file))


def test_nobody_is_told_to_change_our_databases_by_statements() -> None:
    advice = re.compile(
        r"`(?:UPDATE|DELETE FROM|INSERT INTO|TRUNCATE) |run `?(?:UPDATE|DELETE)\b"
        r"|\b(?:delete|remove|update|truncate) [^.`]{0,60}`(?:ledger|state|published|alerts|dashboard)\.\w+`"
    )
    assert advice.search("may let an administrator delete the `ledger.plans` of old days")
    modules = (PROJECT_FOLDER / "episodes_assets").rglob("*.py")
    texts = {page: page.read_text(encoding="utf-8") for page in [*PAGES, *modules]}
    assert [page.name for page, text in texts.items() if advice.search(text)] == []


def test_the_search_for_paths_finds_some() -> None:
    architecture = (PROJECT_FOLDER / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert "ledger/claims.py" in set(_quoted_paths(architecture))
    assert not _exists("ledger/no_such_module.py")
    assert not _exists("docs/no-such-page.md")


def _journeys() -> dict[str, set[str]]:
    """The files that each journey of ARCHITECTURE.md passes through, by the journey's name."""
    architecture = (PROJECT_FOLDER / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = architecture.split("\n## Four journeys\n", 1)[1].split("\n## ", 1)[0]
    named = (re.match(r"\*\*(.+?)\*\*", each) for each in section.split("\n\n"))
    return {
        name[1]: {quoted for quoted in re.findall(r"`([^`\n]+)`", name.string) if FILE.fullmatch(quoted)}
        for name in named
        if name
    }


def test_each_journey_passes_through_few_files() -> None:
    journeys = _journeys()
    assert len(journeys) == 4
    assert all(journeys.values())
    assert {name: len(files) for name, files in journeys.items() if len(files) > MOST_FILES} == {}


def test_each_file_of_a_journey_exists() -> None:
    package = PROJECT_FOLDER / "episodes_assets"
    files = set().union(*_journeys().values())
    assert [file for file in sorted(files) if not (package / file).is_file()] == []
