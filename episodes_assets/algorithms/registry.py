"""All algorithms: whatever modules of this package define as `ALGORITHM`.

A module that does not import takes nothing else down. Its id is read from its text, so that its rows are
planned like any others and just its own jobs fail, with the traceback of the import.
"""

import importlib.util
import logging
import pkgutil
import re
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd

import episodes_assets.algorithms as package
from episodes_assets.algorithms.base import Algorithm

log = logging.getLogger(__name__)

_NOT_ALGORITHMS = {"base", "registry", "compute"}
_ID = re.compile(r"\balgorithm_id\s*=\s*(\d+)")


class AlgorithmUnavailable(Exception):
    """The algorithm cannot run in this process: it does not import, or is not known."""


def discover(names: Iterable[str]) -> tuple[Algorithm, ...]:
    """The algorithms of some modules of the package, by id.

    A module that neither imports nor says its `algorithm_id` in plain digits is left out with an error in
    the log: nobody can say which rows are its own.

    Raises:
        ValueError: If two share an id or a name.
    """
    found = sorted(filter(None, map(_load, names)), key=lambda each: each.algorithm_id)
    if len({each.algorithm_id for each in found}) != len(found):
        raise ValueError("two algorithms share an algorithm_id")
    if len({each.name for each in found}) != len(found):
        raise ValueError("two algorithms share a name")
    return tuple(found)


def _load(name: str) -> Algorithm | None:
    try:
        algorithm: Algorithm = importlib.import_module(f"{package.__name__}.{name}").ALGORITHM
    except (Exception, SystemExit) as error:  # noqa: BLE001  a module of another team may raise anything
        reason = "".join(traceback.format_exception(error))
        log.error("algorithm %s does not import: %s", name, reason.strip().splitlines()[-1])  # noqa: TRY400
        return _unavailable(name, reason)
    return algorithm


def _unavailable(name: str, reason: str) -> Algorithm | None:
    spec = importlib.util.find_spec(f"{package.__name__}.{name}")
    text = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    if (stated := _ID.search(text)) is None:
        return None

    def refuse(_viewings: pd.DataFrame, _jobs: pd.DataFrame) -> pd.DataFrame:
        raise AlgorithmUnavailable(reason)

    return Algorithm(int(stated.group(1)), name, "", "", {}, refuse, import_error=reason)


ALGORITHMS: tuple[Algorithm, ...] = discover(
    module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in _NOT_ALGORITHMS
)
BY_ID: Mapping[int, Algorithm] = MappingProxyType({each.algorithm_id: each for each in ALGORITHMS})


def require_available(algorithm_id: int) -> None:
    """Do nothing if jobs of an algorithm can run in this process.

    Raises:
        AlgorithmUnavailable: If they cannot; the first line says why, the others are the import's traceback.
    """
    algorithm = BY_ID.get(algorithm_id)
    if algorithm is None:
        raise AlgorithmUnavailable(f"this release knows no algorithm {algorithm_id}")
    if algorithm.import_error is not None:
        reason = algorithm.import_error.strip()
        raise AlgorithmUnavailable(
            f"{algorithm.name} does not import ({reason.splitlines()[-1]})\n\n{reason}"
        )
