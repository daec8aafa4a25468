"""Two things at once: started together at a barrier, one of them a moment later."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Barrier
from typing import Any

from episodes_assets_tests.support.fork_server import FORK_SERVER
from episodes_assets_tests.support.run_process import own_process
from episodes_assets_tests.support.system import System


def in_processes(chance: random.Random, latest: float, *functions: Callable[[], Any]) -> list[Any]:
    """Run functions in processes that begin together, up to `latest` seconds apart; what each returned."""
    barrier = FORK_SERVER.Barrier(len(functions))
    with ExitStack() as stack:
        processes = [
            stack.enter_context(own_process(_together, barrier, chance.uniform(0, latest), function))
            for function in functions
        ]
        return [process.result() for process in processes]


def in_threads(chance: random.Random, latest: float, *functions: Callable[[], Any]) -> list[Any]:
    """The same in threads."""
    barrier = threading.Barrier(len(functions))
    with ThreadPoolExecutor(len(functions)) as pool:
        begun = [
            pool.submit(partial(_together, barrier, chance.uniform(0, latest), function))
            for function in functions
        ]
        return [each.result() for each in begun]


def deadlocks(system: System) -> int:
    """How many PostgreSQL has had to resolve in the databases of a system."""
    counted = system.query(
        "queue",
        "SELECT sum(deadlocks) FROM pg_stat_database WHERE datname = ANY (%s)",
        [[system.query(name, "SELECT current_database()")[0][0] for name in ("queue", "results")]],
    )
    return int(counted[0][0])


def _together(barrier: Barrier, delay: float, function: Callable[[], Any]) -> Any:
    barrier.wait(60)
    time.sleep(delay)
    return function()
