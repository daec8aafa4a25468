"""Promises that are attacked by tests of their own, and what came of those in pytest's JUnit record.

`python -m episodes_assets_tests.chaos.other_promises` prints the files, for `make chaos` to run them.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "episodes_assets_tests"


@dataclass(frozen=True)
class TestedPromise:
    """A promise and the test modules that try to break it."""

    __test__ = False

    promise: str
    attack: str
    modules: tuple[str, ...]


TESTED = (
    TestedPromise(
        "Poison fails alone, within its time limit, and is recovered once fixed",
        "jobs that raise, hang, eat memory, end their process, return other columns or no value; a "
        "module that does not import; a job that kills its worker",
        ("worker.test_poison", "worker.test_worker"),
    ),
    TestedPromise(
        "A worker outlives its connections and leaves a queue that is not its own",
        "connections cut, a silent server, a message that went to another, a schema that changes underneath",
        ("worker.test_sessions",),
    ),
    TestedPromise(
        "A day that makes no progress raises an alert that says what is stuck",
        "no worker, lost messages, jobs that run for ever, workers that fell silent",
        ("defs.test_stalls",),
    ),
    TestedPromise(
        "Another environment's databases and lake are not written",
        "each write path of a process of another environment; hosts that are not listed; an input role that "
        "can write",
        (
            "postgres.test_stamps",
            "postgres.test_allowed_hosts",
            "postgres.test_input_role",
            "test_settings",
        ),
    ),
    TestedPromise(
        "What does not add up is not built on",
        "drops, state, ledger, outcomes and published rows that are tampered with; a drop of a tenth; "
        "slow planning; yesterday unpublished",
        ("defs.test_checks", "checks.test_verdicts"),
    ),
    TestedPromise(
        "What a published day was computed from never changes and never goes away",
        "viewings that the input deletes, that arrive late, that are changed; an interrupted beginning; "
        "writers at once; files and log entries that are removed, cut or changed, byte by byte; homes from "
        "before",
        (
            "defs.test_input_viewings",
            "defs.test_late_viewings",
            "defs.test_lost_viewings",
            "defs.test_before_the_lake",
            "lake.test_viewings",
            "lake.test_versions",
            "lake.test_damage",
            "lake.test_object_store",
            "cli.test_lake",
        ),
    ),
    TestedPromise(
        "What is written to the lake is seen whole or not at all, and vacuum removes what is left over",
        "SIGKILL and a full disk at each system call that changes a file, also those of native code",
        ("lake.test_killed_writer",),
    ),
    TestedPromise(
        "An object store that goes away is named within a stated time, and nothing is lost",
        "each request refused, answered with 500 or 503, cut off, done without an answer; a server that "
        "stands still",
        ("lake.test_object_store_faults",),
    ),
    TestedPromise(
        "A day is the same bytes whoever takes and computes it",
        "two homes with other hash seeds, time zones, locales and thread counts; input rows in another "
        "order; an input that is gone",
        ("lake.test_reproducible",),
    ),
    TestedPromise(
        "A wrong day is corrected with all later days, and what was published stays on record",
        "a refreshed drop whose successors were deleted, changed viewings, waived and retried jobs",
        (
            "cli.test_correct",
            "defs.test_held_jobs",
            "lake.test_drops",
            "lake.test_older_snapshots",
            "results.test_publish",
        ),
    ),
    TestedPromise(
        "Databases and a lake that do not fit each other are told, and no number is given twice",
        "each of them brought back to an earlier moment; a newer and a lost drop",
        ("cli.test_restored",),
    ),
    TestedPromise(
        "What ended a run or a command is said by its cause",
        "full disks, no memory, no connection left, missing rights, time limits, servers that go away",
        ("root_causes.test_disk_full", "root_causes.test_databases", "root_causes.test_machine"),
    ),
    TestedPromise(
        "Outsiders hold nobody up; who holds a lock is named",
        "locks taken by a consumer and a worker, sessions that wait, connections up to a role's limit",
        ("postgres.test_locks", "postgres.test_role_limits"),
    ),
    TestedPromise(
        "Algorithms run in compute processes alone",
        "modules that end or hang the process that imports them, or look for secrets",
        ("algorithms.test_isolation",),
    ),
    TestedPromise(
        "A lab is what its source has published, cannot harm it, and holds nothing that leads there",
        "rights of every kind given to the roles that read; a source and a lab that are tampered with; "
        "damaged bundles; environments and sockets of the processes that load",
        ("lab.test_write_rights", "lab.test_take", "lab.test_clone"),
    ),
    TestedPromise(
        "A bundle and a lab whose making is killed are finished by the same command, file by file",
        "SIGKILL at each statement and each change of a file while they are made, and while a lab is deleted",
        ("lab.test_killed",),
    ),
    TestedPromise(
        "Servers that are recovered to a restore point agree, and the days after it come again the same",
        "a server that is lost, with a base backup and an archived log, by the runbook as it is written",
        ("cli.test_backup_runbook",),
    ),
    TestedPromise(
        "People are told of each alert when it opens and when it ends, and no message is lost",
        "receivers that are down, refuse, accept and do not answer, or answer a byte at a time; names that "
        "are not resolved; senders that are killed; a daemon that stands still; a second web server that "
        "sees otherwise, a first one that is killed or hangs; databases that are away",
        ("outbox.test_told_once", "outbox.test_receivers", "defs.test_alert_people", "dashboard.test_watch"),
    ),
    TestedPromise(
        "No statement depends on the planner's statistics",
        "50,000 and 500,000 rows under statistics of every kind",
        ("query_plans.test_bounded_queries",),
    ),
    TestedPromise(
        "Upgrades lose nothing; releases refuse each other outside the window that the schema states",
        "databases of earlier migrations with jobs in flight; `db init` interrupted at its statements; "
        "versions below and above, within the window and outside; older processes that live when a schema is "
        "to be finished, or begin just then",
        (
            "postgres.test_versions",
            "postgres.test_upgrade_window",
            "postgres.test_upgrade_to_corrections",
            "postgres.test_provision",
        ),
    ),
)


def outcomes(junit: Path) -> list[tuple[str, str, int, int]]:
    """Each promise with its attack, and how many cases were tried and passed.

    Args:
        junit: The record of a run of all files.
    """
    tried: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for case in ET.parse(junit).iter("testcase"):
        module = case.get("classname", "").removeprefix(f"{PACKAGE}.")
        tried[module] += 1
        passed[module] += all(child.tag in {"properties", "system-out", "system-err"} for child in case)
    return [
        (
            each.promise,
            each.attack,
            sum(tried[module] for module in each.modules),
            sum(passed[module] for module in each.modules),
        )
        for each in TESTED
    ]


if __name__ == "__main__":
    print(*(f"{PACKAGE}/{name.replace('.', '/')}.py" for each in TESTED for name in each.modules))
