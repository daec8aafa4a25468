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
WHOLE = re.compile(r"(?:episodes_assets|episodes_assets_tests|benchmarks|docs|scripts)/[^\s`]*")
MODULE = re.compile(r"[\w/<>-]+/[\w<>-]+\.py")


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


def test_the_search_for_paths_finds_some() -> None:
    architecture = (PROJECT_FOLDER / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert "ledger/claims.py" in set(_quoted_paths(architecture))
    assert not _exists("ledger/no_such_module.py")
    assert not _exists("docs/no-such-page.md")
