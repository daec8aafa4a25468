"""A process of its own that runs assets of a day: `python -m benchmarks.assets_process DAY [ASSET...]`.

By default those that plan it. Prints the seconds of each asset and of the whole run, what the process took of
the processors meanwhile, and the peak of its memory, as JSON.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from episodes_assets.definitions import build_defs

# The step that makes the first one takes the viewings as well, and its seconds are those of both.
PLANNING = ("input_episodes", "tracked_episodes", "episode_jobs")
FINISHING = ("job_outcomes", "published_results")


def main(day: str, assets: Sequence[str]) -> None:
    """Run the assets in Dagster's instance."""
    job = build_defs().resolve_implicit_global_asset_job_def()
    of_one_step = ["input_viewings"] if "input_episodes" in assets else []
    with dg.DagsterInstance.get() as instance:
        began, computed = time.perf_counter(), time.process_time()
        result = job.execute_in_process(
            instance=instance,
            partition_key=day,
            asset_selection=[dg.AssetKey(asset) for asset in (*assets, *of_one_step)],
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        run_seconds = time.perf_counter() - began
        processor_seconds = time.process_time() - computed
    seconds = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata[
            "seconds"
        ].value
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    others = {"run": run_seconds, "processor": processor_seconds, "peak_bytes": peak_memory()}
    print(json.dumps({**seconds, **others}))


def peak_memory(process: int | None = None) -> int:
    """The most memory that a process ever had, in bytes; by default this one.

    Not from getrusage: its peak outlives an exec, so it would be that of the process that started us.
    """
    status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="utf-8")
    facts = dict(line.split(":", 1) for line in status.splitlines())
    return int(facts["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or PLANNING)
