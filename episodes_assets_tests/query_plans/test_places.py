"""The statements on a schema lie in one package, so that what happens to it can be read there."""

import re

from episodes_assets_tests.query_plans.written_statements import written_statements

PACKAGES = {
    r"\b(published|state)\.\w": ("results/", "postgres/provision/"),
    r"\b(ledger\.\w|pgqueuer)": ("ledger/", "postgres/provision/"),
    r"\bdashboard\.\w": ("accounts/", "postgres/provision/"),
    r"\balerts\.\w": ("outbox/", "postgres/provision/"),
    # Dagster's own tables, for what its API cannot say in one statement.
    r"\bdagster\.\w": (
        "postgres/processes.py",
        "postgres/provision/",
        "results/verify.py",
        "defs/storage.py",
    ),
}


def test_statements_lie_in_the_package_of_their_schema() -> None:
    """All schemas in one test: finding the statements takes a second in each process of the tests."""
    for schema, packages in PACKAGES.items():
        places = [each.place for each in written_statements() if re.search(schema, each.text)]
        assert places
        assert [place for place in places if not place.startswith(packages)] == [], schema


def test_published_rows_are_turned_into_text_in_one_place() -> None:
    """A day's checksum is taken of that text, where it is published and where it is checked."""
    places = [each.place for each in written_statements() if "TO STDOUT" in each.text]
    assert [place.partition(":")[0] for place in places] == ["ledger/verify.py"]
