"""The page of the settings is the one that the settings themselves give."""

from episodes_assets.settings import PROJECT_FOLDER
from episodes_assets_tests.docs.settings_page import settings_page

PAGE = "docs/settings.md"


def test_the_page_of_the_settings_is_current() -> None:
    is_current = (PROJECT_FOLDER / PAGE).read_text(encoding="utf-8") == settings_page()
    assert is_current, f"{PAGE} differs from episodes_assets/settings.py: run `make docs` to write it anew"
