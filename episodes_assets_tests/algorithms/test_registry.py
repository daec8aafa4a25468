"""What algorithms declare is read from the text of their modules, and nothing of them runs."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from episodes_assets import algorithms
from episodes_assets.algorithms.declaration import Metric
from episodes_assets.algorithms.registry import AlgorithmUnavailable, Registry, get_registry, load

Read = Callable[..., Registry]

LITERAL = {
    "algorithm_id": "97",
    "name": '"stay"',
    "version": '"1"',
    "description": '"Mean " "seconds."',
    "columns": '{"mean_seconds": Metric.REAL, "stays": base.Metric.INTEGER}',
    "compute": "compute",
    "may_be_missing": '["mean_seconds"]',
    "timeout_seconds": "30",
}
IMPORTS = (
    "from episodes_assets.algorithms import base\n"
    "from episodes_assets.algorithms.base import Algorithm, Metric\n"
)
RUNS = "raise SystemExit('nobody is to run this')"
WELL = "def compute(viewings, jobs): ..."


def module(head: str = RUNS, tail: str = "", **changed: str | None) -> str:
    """A module's text, some arguments of its algorithm changed or left out; ALGORITHM is in line 4."""
    given = {name: value for name, value in {**LITERAL, **changed}.items() if value is not None}
    arguments = "".join(f"    {name}={value},\n" for name, value in given.items())
    return f"{IMPORTS}{head}\nALGORITHM = Algorithm(\n{arguments})\n{tail}"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Reads some modules beside the real ones."""

    def read_them(**texts: str | bytes) -> Registry:
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setattr(algorithms, "__path__", [*algorithms.__path__, str(tmp_path)])
        get_registry.cache_clear()
        return get_registry()

    before = set(sys.modules)
    yield read_them
    get_registry.cache_clear()
    load.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith(f"{algorithms.__name__}."):
            del sys.modules[name]


def test_a_declaration_is_read_without_running_its_module(read: Read) -> None:
    found = read(stay=module()).by_id[97]
    assert (found.algorithm_id, found.name, found.version) == (97, "stay", "1")
    assert found.description == "Mean seconds."
    assert list(found.columns.items()) == [("mean_seconds", Metric.REAL), ("stays", Metric.INTEGER)]
    assert found.may_be_missing == ("mean_seconds",)
    assert found.timeout_seconds == 30
    with pytest.raises(
        AlgorithmUnavailable, match=r"stay does not import \(SystemExit: nobody is to"
    ) as ended:
        load(97)
    assert "Traceback" in ended.value.trace


def test_what_is_not_given_has_its_default(read: Read) -> None:
    found = read(stay=module(may_be_missing=None, timeout_seconds=None)).by_id[97]
    assert found.may_be_missing == ()
    assert found.timeout_seconds is None


@pytest.mark.parametrize(
    ("changed", "line", "problem"),
    [
        ({"version": "VERSION"}, 7, "version is not a literal; write the value itself"),
        ({"description": 'f"{WHAT}"'}, 8, "description is not a literal"),
        ({"timeout_seconds": "3 * 60"}, 12, "timeout_seconds is not a literal"),
        ({"columns": "COLUMNS"}, 9, "columns is not a literal"),
        ({"columns": "{**COLUMNS}"}, 9, "columns is not a literal"),
        ({"columns": "{name: Metric.REAL for name in NAMES}"}, 9, "columns is not a literal"),
        ({"columns": '{"x": REAL}'}, 9, "a type in columns is not Metric.INTEGER or Metric.REAL"),
        ({"columns": '{"x": Metric.COMPLEX}'}, 9, "a type in columns is not Metric"),
        ({"columns": "{}"}, 9, "columns: Dictionary should have at least 1 item"),
        ({"columns": '{"epid": Metric.REAL}', "may_be_missing": "()"}, 5, "has a column epid already"),
        (
            {"columns": '{"algorithm_id": Metric.REAL}', "may_be_missing": "()"},
            5,
            "has a column algorithm_id already",
        ),
        ({"may_be_missing": '("views",)'}, 5, "may_be_missing names views, which is no column"),
        ({"name": '"results"'}, 5, "results is the name of a published table"),
        ({"name": '"No Name"'}, 6, "name: String should match pattern"),
        ({"version": "1"}, 7, "version: Input should be a valid string"),
        ({"version": None}, 5, "version: Field required"),
        ({"timeout_seconds": "0"}, 12, "timeout_seconds: Input should be greater than 0"),
        ({"timeout_seconds": "1e999"}, 12, "timeout_seconds: Input should be a finite number"),
        ({"import_error": "None"}, 13, "import_error: Unexpected keyword argument"),
        ({"compute": None}, 4, "compute is missing"),
    ],
)
def test_what_is_no_literal_of_its_type_is_refused_with_file_and_line(
    read: Read, changed: dict[str, Any], line: int, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = read(stay=module(**changed))
    (found,) = registry.problems
    assert found.startswith(f"stay.py, line {line}: ")
    assert problem in found
    assert found in caplog.text
    assert list(registry.by_id) == [0, 1, 2]
    if "compute" not in changed:
        assert registry.name_of(97) == "stay"
        with pytest.raises(AlgorithmUnavailable, match="stay cannot be used"):
            load(97)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (module(algorithm_id="FIRST + 3"), 5, "algorithm_id is not a literal"),
        (module(algorithm_id="True"), 5, "algorithm_id: Input should be a valid integer"),
        (module(algorithm_id="32768"), 5, "algorithm_id: Input should be less than or equal to 32767"),
        ("import nothing_of_the_kind\n", 1, "there is no ALGORITHM = Algorithm(...) at the module's top"),
        ("if True:\n    ALGORITHM = Algorithm()\n", 1, "there is no ALGORITHM"),
        ("\nALGORITHM = replace(OTHER, algorithm_id=97)\n", 2, "is not assigned as Algorithm(...)"),
        ("\nALGORITHM: Algorithm\n", 2, "is not assigned as Algorithm(...)"),
        ("\nALGORITHM = Algorithm(97)\n", 2, "must be given by its name"),
        ("\nALGORITHM = Algorithm(**GIVEN)\n", 2, "must be given by its name"),
        ("\n\ndef (\n", 3, "invalid syntax"),
        (b"X = '\xff'\n", 1, "can't decode byte"),
        (b"ALGORITHM = \0\n", 1, "null bytes"),
        (f"ALGORITHM = Algorithm(algorithm_id={'(' * 500}1{')' * 500}, compute=1)\n", 1, ""),
        (f"ALGORITHM = Algorithm(algorithm_id={'-' * 3_000}1, compute=1)\n", 1, ""),
        (f"ALGORITHM = {'a.' * 3_000}b\n", 1, ""),
    ],
)
def test_of_what_cannot_be_read_no_row_is_known_and_nothing_else_is_hurt(
    read: Read, text: str | bytes, line: int, problem: str
) -> None:
    registry = read(stay=text)
    (found,) = registry.problems
    assert found.startswith(f"stay.py, line {line}: ")
    assert problem in found
    assert registry.ids == {0, 1, 2}
    with pytest.raises(AlgorithmUnavailable, match="knows no algorithm 97"):
        load(97)


def test_a_module_that_does_not_parse_keeps_its_id(read: Read) -> None:
    registry = read(half_written=f"def (\n{module()}", copied="def (\nalgorithm_id=0\n")
    assert registry.problems == (
        "copied.py, line 1: invalid syntax",
        "half_written.py, line 1: invalid syntax",
    )
    assert registry.ids == {0, 1, 2, 97}
    assert registry.by_id[0].name == "reach"
    with pytest.raises(AlgorithmUnavailable, match=r"half_written cannot be used \(half_written.py, line 1"):
        registry.require_usable(97)


def test_a_second_assignment_is_refused(read: Read) -> None:
    registry = read(stay=module(tail="ALGORITHM: Algorithm = ALGORITHM\n"))
    assert registry.problems == ("stay.py, line 14: ALGORITHM is assigned a second time",)


def test_of_two_with_one_id_neither_runs_and_each_other_does(read: Read) -> None:
    registry = read(stay=module(), leave=module(name='"leave"'))
    assert registry.problems == ("leave and stay have the same algorithm_id",)
    assert list(registry.by_id) == [0, 1, 2]
    assert registry.name_of(97) == "leave and stay"
    with pytest.raises(AlgorithmUnavailable, match="leave and stay have the same algorithm_id"):
        load(97)


def test_of_two_with_one_name_neither_runs(read: Read) -> None:
    registry = read(stay=module(), other=module(algorithm_id="98"))
    assert registry.problems == ("other and stay have the same name",)
    assert registry.unusable.keys() == {97, 98}


@pytest.mark.parametrize(
    ("head", "tail", "problem"),
    [
        (WELL, "globals()['ALGORITHM'] = None\n", "ALGORITHM of stay is no Algorithm"),
        (
            WELL,
            "import dataclasses\nglobals().update(ALGORITHM=dataclasses.replace(ALGORITHM, version='2'))\n",
            "version of stay is not what the text of its module declares",
        ),
        ("class Own(BaseException): ...\nraise Own('cause')", "", "stay does not import (Own: cause)"),
        ("import nothing_of_the_kind", "", "stay does not import (ModuleNotFoundError: No module named"),
    ],
)
def test_a_module_that_makes_something_else_than_it_declares_is_unavailable(
    read: Read, head: str, tail: str, problem: str
) -> None:
    read(stay=module(head, tail))
    with pytest.raises(AlgorithmUnavailable) as refused:
        load(97)
    assert problem in str(refused.value)


def test_a_module_that_is_well_is_loaded(read: Read) -> None:
    declared = read(stay=module(WELL)).by_id[97]
    assert load(97).version == declared.version
