"""A day is the same bytes whoever takes and computes it, in whatever surroundings and order of rows."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from episodes_assets_tests.support.lake_contents import contents
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

ODD = {
    "PYTHONHASHSEED": "4242",
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "C",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
}
OTHER = {
    "PYTHONHASHSEED": "7",
    "TZ": "America/St_Johns",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "5",
    "OPENBLAS_NUM_THREADS": "5",
    "ARROW_IO_THREADS": "9",
}


def run(system: System, *options: str, env: Mapping[str, str]) -> None:
    """Run the second day, or the first two."""
    result = system.cli("run", str(day(2)), "--workers", "1", *options, env=env)
    assert result.returncode == 0, result.stderr


def shuffle(system: System) -> None:
    """Let the input's rows lie in another physical order."""
    for table in ("viewings", "episodes"):
        system.query("input", f"CREATE TABLE shuffled AS SELECT * FROM {table} ORDER BY random()")
        system.query("input", f"DELETE FROM {table}")
        system.query("input", f"INSERT INTO {table} SELECT * FROM shuffled")
        system.query("input", "DROP TABLE shuffled")
        system.query("input", f"VACUUM {table}")


@pytest.mark.slow
def test_two_homes_take_and_compute_a_day_alike(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.generate(day(1), day(2))

    def in_a_home(name: str, env: Mapping[str, str]) -> pd.DataFrame:
        system.forget_everything()
        for setting, folder in (("EPISODES_LAKE_URL", "lake"), ("EPISODES_SNAPSHOTS_URL", "snapshots")):
            monkeypatch.setenv(setting, str(tmp_path / name / folder))
        first = system.cli("run", str(day(1)), "--workers", "1", env=env)
        assert first.returncode == 0, first.stderr
        run(system, env=env)
        return system.published()

    one = in_a_home("one", ODD)
    shuffle(system)
    other = in_a_home("other", OTHER)
    assert contents(tmp_path / "one" / "lake") == contents(tmp_path / "other" / "lake")
    assert len(one) > 100
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.slow
def test_a_published_day_is_computed_again_as_planned_without_an_input(system: System) -> None:
    system.generate(day(1), day(2))
    first = system.cli("run", str(day(1)), "--workers", "1", env=ODD)
    assert first.returncode == 0, first.stderr
    run(system, env=ODD)
    published = system.published()
    # More has arrived since, and then the input is gone.
    system.insert_viewings([(7, 900_000 + n, f"{day(2)} 10:00:{n:02}+00", 5, True) for n in range(20)])
    system.take_viewings(day(2), day(2))
    gone = {
        "EPISODES_INPUT_DSN": "postgresql://nobody@127.0.0.1:9/gone",
        "EPISODES_ALLOWED_HOSTS": "127.0.0.1:9",
    }
    run(system, "--rework", "--as-planned", env={**OTHER, **gone})
    pd.testing.assert_frame_equal(system.published(), published)
    count = system.query("queue", "SELECT count(*) FROM ledger.plans WHERE day = %s", [day(2)])
    assert count == [(2,)]
