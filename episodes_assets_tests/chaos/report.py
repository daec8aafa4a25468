"""`docs/promises.md` from a record of `make chaos`.

Use: `python -m episodes_assets_tests.chaos.report RECORD.json JUNIT.xml PAGE.md`; the second is pytest's
record of the tests that `other_promises` lists.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from episodes_assets_tests.chaos.other_promises import outcomes
from episodes_assets_tests.chaos.record import Promise


def main(record_path: str, junit_path: str, page_path: str) -> None:
    """Write the page."""
    record = json.loads(Path(record_path).read_text(encoding="utf-8"))
    others = outcomes(Path(junit_path))
    sections = (_head(record), _promises(record), _others(others), _figures(record), _repeat(record))
    Path(page_path).write_text(
        "\n\n".join(section for section in sections if section) + "\n", encoding="utf-8"
    )


def _head(record: Mapping[str, Any]) -> str:
    tried = sum(each["tried"] for each in record["attacks"])
    violated = sum(len(each["violations"]) for each in record["attacks"])
    return f"""# Promises, and what was done to break them

On {record["date"]} `make chaos` (seed {record["seed"]}, {record["form"]} form) attacked the promises of
that day's [ARCHITECTURE.md](../ARCHITECTURE.md) {tried:,} times, on real processes and real PostgreSQL,
on {record["cores"]} shared cores. {"None was broken." if not violated else f"{violated} were broken."}

A calm run of the same day is what each attack is compared with: tracked episodes, plans, jobs,
outcomes, published rows and manifests, and the files of the lake must be equal but for ids and
times."""


def _promises(record: Mapping[str, Any]) -> str:
    parts = ["## Attacks"]
    for promise in Promise:
        attacks = [each for each in record["attacks"] if each["promise"] == promise]
        rows = [(each["attack"], f"{each['tried']:,}", f"{each['kept']:,}", _what(each)) for each in attacks]
        if rows:
            parts.append(f"### {promise}\n\n" + _table(("attack", "tried", "kept", "what happened"), rows))
    return "\n\n".join(parts)


def _what(attack: Mapping[str, Any]) -> str:
    return "; ".join(attack["violations"]).replace("|", r"\|") or "as in calm"


def _others(others: Sequence[tuple[str, str, int, int]]) -> str:
    rows = [
        (promise, attack, f"{tried:,}", "kept" if tried == kept else f"broken in {tried - kept}")
        for promise, attack, tried, kept in others
    ]
    return "## Attacks by tests of their own\n\n" + _table(
        ("promise", "attack", "cases", "what happened"), rows
    )


def _figures(record: Mapping[str, Any]) -> str:
    rows = list(record["figures"].items())
    return "## What faults cost\n\n" + _table(("", "measured"), rows) if rows else ""


def _repeat(record: Mapping[str, Any]) -> str:
    return f"""## Repeating one

Every choice follows from one seed. A violation is printed with the command that repeats it, such as
`make chaos SEED={record["seed"]} ONLY=test_any_order_of_steps`. The same tests run in a short form in
`make test`, the longer of them in `make test-long` and `make test-slow`; what they attack there is a sample
that the seed picks."""


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---" if name in {"", "promise", "attack", "what happened"} else "---:" for name in names]
    return "\n".join("| " + " | ".join(line) + " |" for line in [names, marks, *rows])


if __name__ == "__main__":
    main(*sys.argv[1:])
