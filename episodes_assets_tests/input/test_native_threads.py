"""No thread of Arrow's has memory of Python's left when a command ends: letting go of it then aborts it."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from episodes_assets.input.loading import VIEWINGS_SCHEMA, _counted

pytestmark = pytest.mark.process

# So many that another thread is the one to let go at least once, were there any.
_READINGS = 2_000
_PARQUET_ROWS = 2_000
_COUNTED_ROWS = 200_000
_COUNTINGS = 40
_MOMENT = 0.1

# It reads until a thread other than its own is the one to let go of what was read, and ends before that
# thread gets hold of Python, for which it waits much longer than the process lasts.
_END_IN_THAT_MOMENT = """
import sys, time
from pathlib import Path
import pyarrow as pa
from episodes_assets.input.csv_text import read_csv_text
from episodes_assets.input.files import read_input_file
from episodes_assets.input.loading import VIEWINGS_SCHEMA

class Held(bytes):
    now = 0
    def __del__(self):
        Held.now -= 1

def held(memory):
    Held.now += 1
    return reader(Held(memory))

def read_csv():
    read_csv_text(b"epid,viewer_id\\n1,2\\n", lambda names: None, lambda name: False)

def read_parquet():
    read_input_file(path, VIEWINGS_SCHEMA)

sys.setswitchinterval(5)
reader, pa.BufferReader = pa.BufferReader, held
path, read, readings, moment = Path(sys.argv[1]), globals()[sys.argv[2]], int(sys.argv[3]), float(sys.argv[4])
for _ in range(readings):
    read()
    if Held.now:
        break
end = time.perf_counter() + moment
while time.perf_counter() < end:
    pass
"""


class _Memory(bytes):
    """Memory of Python's that tells which threads let go of it."""

    released_by: set[int]

    def __del__(self) -> None:
        self.released_by.add(threading.get_ident())


def _end_after(read: str, readings: int, path: Path) -> tuple[int, str]:
    """How a process ends, and what it says, that has read something again and again."""
    command = [sys.executable, "-P", "-c", _END_IN_THAT_MOMENT]
    ended = subprocess.run(
        [*command, str(path), read, str(readings), str(_MOMENT)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stderr


@pytest.mark.slow
def test_a_process_that_ends_after_reading_csv_is_not_aborted(tmp_path: Path) -> None:
    assert _end_after("read_csv", _READINGS, tmp_path) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
def test_a_process_that_ends_after_reading_parquet_is_not_aborted(tmp_path: Path, *, legacy: bool) -> None:
    rows = np.arange(_PARQUET_ROWS)
    columns = {
        "epid": rows,
        "viewer_id": rows,
        "viewed_at": pa.array(rows * 1_000_000, pa.timestamp("us", "UTC")),
        "seconds_watched": rows,
        "completed": rows % 2 == 0,
    }
    viewings = pa.table(columns).select(VIEWINGS_SCHEMA.names).cast(VIEWINGS_SCHEMA)
    path = tmp_path / "viewings.parquet"
    pq.write_table(viewings, path, row_group_size=100, use_deprecated_int96_timestamps=legacy)
    assert _end_after("read_parquet", _READINGS // 10, path) == (0, "")


@pytest.mark.long
def test_values_are_let_go_of_by_the_thread_that_counts_them() -> None:
    threads: set[int] = set()
    content = np.arange(_COUNTED_ROWS).tobytes()
    for _ in range(_COUNTINGS):
        memory = _Memory(content)
        memory.released_by = threads
        values = pa.Array.from_buffers(pa.int64(), _COUNTED_ROWS, [None, pa.py_buffer(memory)])
        column = pa.chunked_array([values])
        del memory, values
        _counted(column)
        del column
    time.sleep(_MOMENT)  # so that others, were there any, let go as well
    assert threads == {threading.get_ident()}
