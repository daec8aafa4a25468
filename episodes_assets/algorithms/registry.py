"""Which algorithms there are, read from the text of their modules: nothing here runs them but `load`.

An algorithm is a module of this package with `ALGORITHM = Algorithm(...)`, whose arguments, except
`compute`, are literals or members of `Metric`.
Every process that has to know ids, names, columns or time limits calls `get_registry`, which parses the
modules and imports none. So a module that hangs, ends its process or reads the environment does so only
where its jobs run: in the compute processes of workers and of `episodes lab verify`, which alone call `load`.

A module that cannot be read as such is *unusable*, and so are all that declare the same id or name: that is
logged with file and line, their rows are planned like any others, and just their own jobs fail. Of a module
that does not parse, the id is searched for in the text.

How algorithms are computed, and within which limits, is in `compute.py` and in `worker/`.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import logging
import pkgutil
import re
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import episodes_assets.algorithms as package
from episodes_assets.algorithms.declaration import Declaration, Metric

if TYPE_CHECKING:
    from episodes_assets.algorithms.base import Algorithm

log = logging.getLogger(__name__)

_NOT_ALGORITHMS = {"base", "declaration", "registry", "compute"}
_ID = re.compile(r"\balgorithm_id\s*=\s*(\d+)")
_LARGEST_ID = 32_767


class AlgorithmError(Exception):
    """What is wrong with an algorithm, as text: no class of an algorithm's module leaves its process.

    Args:
        reason: In one line.
        trace: The traceback, if there is one.
    """

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason, trace)
        self.reason = reason
        self.trace = trace

    def __str__(self) -> str:
        return self.reason


class AlgorithmUnavailable(AlgorithmError):
    """No job of the algorithm can run here: it is not known, unusable, or does not import."""


@dataclass(frozen=True)
class Unusable:
    """A module whose algorithm cannot be used.

    Attributes:
        name: Of the module, or of those that get in each other's way.
        problem: What is wrong with it, with file and line.
    """

    name: str
    problem: str


@dataclass(frozen=True)
class Registry:
    """The algorithms of this release.

    Attributes:
        by_id: Those that can be used, in the order of their ids.
        unusable: Those whose jobs fail, by id.
        problems: Of all modules that cannot be used, also of those whose id nobody can tell.
        modules: The module of each that can be used, by id.
    """

    by_id: Mapping[int, Declaration]
    unusable: Mapping[int, Unusable]
    problems: tuple[str, ...]
    modules: Mapping[int, str]

    @property
    def ids(self) -> frozenset[int]:
        """The ids that catalogue rows may ask for."""
        return frozenset(self.by_id) | frozenset(self.unusable)

    def name_of(self, algorithm_id: int) -> str:
        """What people call an algorithm; its number when this release does not know it."""
        found = self.by_id.get(algorithm_id) or self.unusable.get(algorithm_id)
        return found.name if found else str(algorithm_id)

    def require_usable(self, algorithm_id: int) -> Declaration:
        """What an algorithm declares.

        Raises:
            AlgorithmUnavailable: If it is unusable or not known.
        """
        if unusable := self.unusable.get(algorithm_id):
            raise AlgorithmUnavailable(f"{unusable.name} cannot be used ({unusable.problem})")
        if algorithm_id not in self.by_id:
            raise AlgorithmUnavailable(f"this release knows no algorithm {algorithm_id}")
        return self.by_id[algorithm_id]


@functools.cache
def get_registry() -> Registry:
    """The algorithms as their modules declare them when a process first asks."""
    registry = _resolve([_read(name) for name in _module_names()])
    for problem in registry.problems:
        log.error("an algorithm cannot be used: %s", problem)
    return registry


@functools.cache
def load(algorithm_id: int) -> "Algorithm":
    """Import an algorithm's module: for the compute processes of workers alone.

    Raises:
        AlgorithmUnavailable: If it does not import, or makes something else than its text declares.
    """
    from episodes_assets.algorithms.base import Algorithm  # with pandas, as the module itself

    registry = get_registry()
    declared = registry.require_usable(algorithm_id)
    try:
        module = importlib.import_module(f"{package.__name__}.{registry.modules[algorithm_id]}")
        algorithm = module.ALGORITHM
    except BaseException as error:  # noqa: BLE001  a module of another team may raise anything
        raise AlgorithmUnavailable(
            f"{declared.name} does not import ({summarize(error)})",
            "".join(traceback.format_exception(error)),
        ) from None
    if not isinstance(algorithm, Algorithm):
        raise AlgorithmUnavailable(f"ALGORITHM of {declared.name} is no Algorithm")
    for field in dataclasses.fields(Declaration):
        if getattr(algorithm, field.name) != getattr(declared, field.name):
            raise AlgorithmUnavailable(
                f"{field.name} of {declared.name} is not what the text of its module declares"
            )
    return algorithm


def summarize(error: BaseException) -> str:
    """An exception's type and message in one line, whatever it does when it is shown."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  its class may be another team's
        message = "its message cannot be shown"
    return f"{type(error).__name__}: {message}".split("\n", 1)[0]


@dataclass(frozen=True)
class _Reading:
    """A module as it was read: what it declares, or what is wrong and which id it seems to have."""

    module: str
    algorithm_id: int | None
    declaration: Declaration | None = None
    problem: str = ""


class _NotDeclared(Exception):
    """A module's text does not say what its algorithm is."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(line, why)
        self.line = line
        self.why = why


def _module_names() -> Iterable[str]:
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in names if name not in _NOT_ALGORITHMS)


def _read(module: str) -> _Reading:
    spec = importlib.util.find_spec(f"{package.__name__}.{module}")
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return _Reading(module, None, problem=f"{module} has no source to read its declaration from")
    path = Path(spec.origin)
    try:
        text = path.read_bytes()
    except OSError as error:
        return _Reading(module, None, problem=f"{path.name} cannot be read ({error.strerror})")
    try:
        with warnings.catch_warnings():  # such as of escape sequences: they are the author's
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        why = getattr(error, "msg", None) or summarize(error)
        return _Reading(module, _search_id(text), problem=f"{path.name}, line {line}: {why}")
    algorithm_id = None
    try:
        arguments = _find_arguments(tree)
        algorithm_id = _literal_id(arguments)
        return _Reading(module, algorithm_id, declaration=_declare(arguments))
    except _NotDeclared as problem:
        where = f"{path.name}, line {problem.line}"
        return _Reading(module, algorithm_id, problem=f"{where}: {problem.why}")


def _search_id(text: bytes) -> int | None:
    found = _ID.search(text.decode("utf-8", errors="replace"))
    number = int(found.group(1)) if found else None
    return number if number is not None and number <= _LARGEST_ID else None


def _find_arguments(tree: ast.Module) -> dict[str, ast.expr]:
    """The arguments of `ALGORITHM = Algorithm(...)`, which stands at the module's top level, once."""
    found = [
        node
        for node in tree.body
        if (isinstance(node, ast.Assign) and any(map(_is_algorithm, node.targets)))
        or (isinstance(node, ast.AnnAssign) and _is_algorithm(node.target))
    ]
    if not found:
        raise _NotDeclared(1, "there is no ALGORITHM = Algorithm(...) at the module's top level")
    if len(found) > 1:
        raise _NotDeclared(found[1].lineno, "ALGORITHM is assigned a second time")
    value = found[0].value
    if not isinstance(value, ast.Call) or _last_name(value.func) != "Algorithm":
        raise _NotDeclared(found[0].lineno, "ALGORITHM is not assigned as Algorithm(...)")
    if value.args or any(keyword.arg is None for keyword in value.keywords):
        raise _NotDeclared(value.lineno, "each argument of Algorithm(...) must be given by its name")
    arguments = {str(keyword.arg): keyword.value for keyword in value.keywords}
    for name in ("algorithm_id", "compute"):
        if name not in arguments:
            raise _NotDeclared(value.lineno, f"{name} is missing")
    return arguments


def _is_algorithm(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == "ALGORITHM"


def _last_name(node: ast.expr) -> str | None:
    """`Metric` of `Metric` and of `base.Metric`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _literal_id(arguments: Mapping[str, ast.expr]) -> int | None:
    node = arguments["algorithm_id"]
    value = node.value if isinstance(node, ast.Constant) else None
    return value if type(value) is int and 0 <= value <= _LARGEST_ID else None


def _declare(arguments: Mapping[str, ast.expr]) -> Declaration:
    read = {"columns": _metrics}
    values: dict[str, Any] = {
        name: read.get(name, _literal)(name, node) for name, node in arguments.items() if name != "compute"
    }
    try:
        return Declaration(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "algorithm_id"
        message = first["msg"].removeprefix("Value error, ")
        line = arguments.get(name, arguments["algorithm_id"]).lineno
        raise _NotDeclared(line, f"{name}: {message}" if first["loc"] else message) from error


def _literal(name: str, node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise _NotDeclared(node.lineno, f"{name} is not a literal; write the value itself") from None


def _metrics(name: str, node: ast.expr) -> dict[object, Metric]:
    if not isinstance(node, ast.Dict) or None in node.keys:
        raise _NotDeclared(node.lineno, f"{name} is not a literal; write the value itself")
    return {
        _literal(name, key): _metric(name, value)
        for key, value in zip(node.keys, node.values, strict=True)
        if key is not None
    }


def _metric(name: str, node: ast.expr) -> Metric:
    if (
        isinstance(node, ast.Attribute)
        and _last_name(node.value) == Metric.__name__
        and node.attr in Metric.__members__
    ):
        return Metric[node.attr]
    allowed = " or ".join(f"{Metric.__name__}.{member}" for member in Metric.__members__)
    raise _NotDeclared(node.lineno, f"a type in {name} is not {allowed}")


def _resolve(readings: Sequence[_Reading]) -> Registry:
    """Let no two share an id or a name; what can be used goes before what only seems to have the same id."""
    good = [(reading.module, reading.declaration) for reading in readings if reading.declaration]
    by_id: dict[int, Declaration] = {}
    modules: dict[int, str] = {}
    unusable: dict[int, Unusable] = {}
    problems = [reading.problem for reading in readings if not reading.declaration]
    for module, own in sorted(good, key=lambda each: each[1].algorithm_id):
        number = own.algorithm_id
        same_id = [other for other, its in good if its.algorithm_id == number]
        same_name = [other for other, its in good if its.name == own.name]
        if len(same_id) == len(same_name) == 1:
            by_id[number], modules[number] = own, module
            continue
        what, which = ("algorithm_id", same_id) if len(same_id) > 1 else ("name", same_name)
        together = " and ".join(which)
        unusable[number] = Unusable(together, f"{together} have the same {what}")
        problems.append(unusable[number].problem)
    for reading in readings:
        claimed = reading.algorithm_id
        if not reading.declaration and claimed is not None and claimed not in by_id:
            unusable.setdefault(claimed, Unusable(reading.module, reading.problem))
    return Registry(
        MappingProxyType(by_id),
        MappingProxyType(unusable),
        tuple(dict.fromkeys(problems)),
        MappingProxyType(modules),
    )
