"""`episodes demo` by stage, from nothing (cold) and with everything there (warm)."""

import os
import subprocess
import sys
import tempfile
import time


def run_demo(home: str) -> float:
    """Seconds that the demo takes; its own table goes to the terminal."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_DSN")}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "episodes_assets", "demo"],
        env={**env, "EPISODES_HOME": home, "DAGSTER_HOME": ""},
        check=True,
    )
    return time.perf_counter() - began


def main() -> None:
    """Measure both in a temporary home."""
    with tempfile.TemporaryDirectory() as home:
        cold = run_demo(home)
        warm = run_demo(home)
    print(f"episodes demo: cold {cold:.1f} s, warm {warm:.1f} s")


if __name__ == "__main__":
    main()
