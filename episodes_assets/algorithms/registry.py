"""All algorithms: whatever modules of this package define as `ALGORITHM`."""

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

import episodes_assets.algorithms as package
from episodes_assets.algorithms.base import Algorithm


def _discover() -> tuple[Algorithm, ...]:
    modules = (
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
        if module.name not in {"base", "registry", "compute"}
    )
    found = sorted((module.ALGORITHM for module in modules), key=lambda each: each.algorithm_id)
    if len({each.algorithm_id for each in found}) != len(found):
        raise ValueError("two algorithms share an algorithm_id")
    if len({each.name for each in found}) != len(found):
        raise ValueError("two algorithms share a name")
    return tuple(found)


ALGORITHMS: tuple[Algorithm, ...] = _discover()
BY_ID: Mapping[int, Algorithm] = MappingProxyType({each.algorithm_id: each for each in ALGORITHMS})
