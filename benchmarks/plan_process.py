"""A process of its own that plans a day through Dagster: `python -m benchmarks.plan_process DAY`.

Prints the seconds of each asset, of the whole run, and the peak of its memory, as JSON.
"""

import json
import sys
import time
from pathlib import Path

import dagster as dg

from episodes_assets.definitions import build_defs

# The step that makes the first one takes the viewings as well, and its seconds are those of both.
PLANNING = ("input_episodes", "tracked_episodes", "episode_jobs")


def main(day: str) -> None:
    """Plan the day in Dagster's instance."""
    job = build_defs().resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        began = time.perf_counter()
        result = job.execute_in_process(
            instance=instance,
            partition_key=day,
            asset_selection=[dg.AssetKey(asset) for asset in (*PLANNING, "input_viewings")],
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        run_seconds = time.perf_counter() - began
    seconds = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata[
            "seconds"
        ].value
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    print(json.dumps({**seconds, "run": run_seconds, "peak_bytes": peak_memory()}))


def peak_memory() -> int:
    """The most memory this process ever had, in bytes.

    Not from getrusage: its peak outlives an exec, so it would be that of the process that started us.
    """
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    return int(status["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    main(sys.argv[1])
