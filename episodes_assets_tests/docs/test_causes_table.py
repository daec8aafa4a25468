"""The table of causes is the one that the code gives."""

from episodes_assets.settings import PROJECT_FOLDER
from episodes_assets_tests.docs.causes_table import with_table

PAGE = "docs/explain.md"


def test_the_table_of_causes_is_current() -> None:
    page = (PROJECT_FOLDER / PAGE).read_text(encoding="utf-8")
    is_current = page == with_table(page)
    assert is_current, f"{PAGE} differs from episodes_assets/explanation/causes.py: run `make docs`"
