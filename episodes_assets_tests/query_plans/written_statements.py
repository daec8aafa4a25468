"""The SQL statements that stand in the package's modules."""

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import episodes_assets

PACKAGE = Path(episodes_assets.__file__).parent
_STATEMENT = re.compile(r"\s*(SELECT|WITH|INSERT INTO|UPDATE|DELETE FROM|COPY)\b")
_PARAMETER = re.compile(r"%\(\w+\)s|%s|\{\w*\}")


@dataclass(frozen=True)
class Written:
    """A statement as a module has it.

    Attributes:
        place: The module and line.
        text: With whatever names its parameters.
    """

    place: str
    text: str

    @property
    def query(self) -> str:
        """What a `COPY ... TO STDOUT` copies; or the statement itself."""
        head, _, rest = self.text.partition("(")
        return (
            rest.rpartition(")")[0].strip() if head.strip() == "COPY" and "TO STDOUT" in rest else self.text
        )

    @property
    def loads(self) -> bool:
        """Whether it only appends what it is sent."""
        return self.text.startswith("COPY") and "FROM STDIN" in self.text

    def is_in(self, executed: str) -> bool:
        """Whether this is what was executed, with whatever parameters."""
        parts = map(re.escape, _PARAMETER.split(self.query))
        return re.search(".*?".join(parts), executed, re.DOTALL) is not None


@functools.cache
def written_statements() -> Sequence[Written]:
    """All of them, but for migrations, which run once."""
    return tuple(_written())


def _written() -> Iterator[Written]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "migrations" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        parts = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in ast.walk(tree):
            if id(node) not in parts and (text := _text(node)) and _STATEMENT.match(text):
                yield Written(f"{path.relative_to(PACKAGE)}:{node.lineno}", " ".join(text.split()))  # type: ignore[attr-defined]


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "%s" for each in node.values)
    return None
