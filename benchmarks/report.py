"""`docs/benchmarks.md` from the figures of some runs: `python -m benchmarks.report FOLDER README RAW...`.

Writes into the folder `benchmarks.json` (the figures, the machine, the versions), `benchmarks.md` and
the plots it shows; and the few figures that a README has between its two marks. A README that is `-` is left
alone.

What follows `--again` are as many runs of some benchmarks, which take the place of their first figures.

`python -m benchmarks.report --large FOLDER RAW` does so for the large days, which are run by themselves:
it writes `benchmarks-large.json` and their section of the page, which the other report keeps as it is.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import plots
from benchmarks.aims import (
    Aim,
    for_a_day,
    ids_rate,
    number,
    octets,
    rate,
    read_aims,
    read_large_aims,
    seconds,
    size,
    times,
)
from benchmarks.figures import Figure, Run, read_runs

ASSETS = ("input_episodes", "tracked_episodes", "episode_jobs", "job_outcomes", "published_results")


_TRANSFERS = ("drop", "viewings", "state", "jobs_in")
# A figure whose slowest run is more than so many times its fastest is explained.
WIDE = 1.5
_COLLECTED = "Python's garbage collector takes 0.3 s among a million objects, and falls into some runs only"
SPREAD_REASONS: Mapping[str, str] = {
    "start dates: whole columns": "less than 2 ms, of which other work on the machine is a large part",
    "start dates: row-wise set": _COLLECTED,
}
MARKS = ("<!-- figures of make bench -->", "<!-- end of figures -->")
LARGE_MARKS = ("<!-- figures of make bench-large -->", "<!-- end of the large days -->")
PAGE, LARGE_FIGURES = "benchmarks.md", "benchmarks-large.json"
_KEPT = ("ledger.jobs", "ledger.outcomes", "published.results")
_NOT_RUN = "## Large days\n\nNot run yet: `make bench-large`."


def main(folder: str, readme: str, *raw_paths: str) -> None:
    """Write the report."""
    run = _read(raw_paths)
    target = Path(folder)
    images = target / "images"
    images.mkdir(parents=True, exist_ok=True)
    plots.start_dates(run.find("start dates"), run.sizes["drop_rows"], images / "benchmark-start-dates.svg")
    plots.backfill(run.named("backfill", "planned"), images / "benchmark-backfill.svg")
    plots.fleet(run.find("the fleet"), images / "benchmark-fleet.svg")
    _write_figures(run, target / "benchmarks.json")
    sections = (
        _head,
        _aims,
        _spread,
        _start_dates,
        _planning,
        _fan_out,
        _fleet,
        _engines,
        _lake,
        _nights,
        _backfill,
        _labs,
        _latency,
        _rest,
    )
    page = target / PAGE
    parts = [*run.parts(sections)]
    if page.exists() and LARGE_MARKS[0] in (before := page.read_text(encoding="utf-8")):
        large = before.split(LARGE_MARKS[0])[1].split(LARGE_MARKS[1])[0].strip()
    else:
        large = _NOT_RUN
    parts.append(f"{LARGE_MARKS[0]}\n{large}\n{LARGE_MARKS[1]}")
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    if readme != "-":
        _put_between(Path(readme), MARKS, _summary(run))


def main_large(folder: str, *raw_paths: str) -> None:
    """Write the large days' part of the report."""
    run = _read(raw_paths)
    target = Path(folder)
    _write_figures(run, target / LARGE_FIGURES)
    page = target / PAGE
    if LARGE_MARKS[0] not in page.read_text(encoding="utf-8"):
        with page.open("a", encoding="utf-8") as end:
            end.write(f"\n{LARGE_MARKS[0]}\n{LARGE_MARKS[1]}\n")
    _put_between(page, LARGE_MARKS, _large(run))


def _read(raw_paths: Sequence[str]) -> Run:
    raws = [json.loads(Path(path).read_text(encoding="utf-8")) for path in raw_paths if path != "--again"]
    complete = raw_paths.index("--again") if "--again" in raw_paths else len(raws)
    return read_runs(raws[:complete], raws[complete:])


def _write_figures(run: Run, path: Path) -> None:
    content = {
        "date": run.when,
        "machine": run.machine,
        "sizes": run.sizes,
        "runs": run.runs,
        "measured again": run.measured_again,
        "figures": [vars(figure) for figure in run.figures],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _put_between(path: Path, marks: tuple[str, str], new: str) -> None:
    text = path.read_text(encoding="utf-8")
    before, after = text.split(marks[0])[0], text.split(marks[1])[1]
    path.write_text(f"{before}{marks[0]}\n{new}\n{marks[1]}{after}", encoding="utf-8")


def _summary(run: Run) -> str:
    rows, tracked = run.sizes["drop_rows"], run.sizes["tracked"][0]
    columns, by_row = (
        seconds(for_a_day(run, run.find("start dates", how=how, tracked=tracked)[-1]))
        for how in ("whole columns", "row-wise list")
    )
    planned = run.find("planning a day")[0]
    fleet, other = run.named("the fleet", "workers: 2"), run.named("the fleet", "Procrastinate")
    demo = ", ".join(f"{each.name.split(', ')[1]}: {seconds(each.seconds)}" for each in run.find("demo"))
    lines = [
        (
            f"start dates of {rows:,} rows, {tracked:,} episodes tracked",
            f"{columns} (row by row, as it once was: {by_row})",
        ),
        (
            "planning that day, database to database, 50,000 jobs",
            f"{seconds(planned.seconds)}, {size(planned.facts['peak_bytes'])}",
        ),
        ("two workers on 50,000 jobs", f"{rate(fleet.rate)} (Procrastinate: {rate(other.rate)})"),
        ("publishing 50,000 outcomes", seconds(run.named("publishing", "published").seconds)),
        *((figure.name, seconds(figure.seconds)) for figure in run.find("backfill")[-1:]),
        ("`episodes demo`", demo),
    ]
    return f"""Measured on {run.when} by `make bench` ({_runs(run)}) on {run.machine["cores"]} shared cores
({run.machine["processor"]}), embedded PostgreSQL with durable settings:

{_table(("", "measured"), lines)}"""


def _head(run: Run) -> str:
    machine = run.machine
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    return f"""# Benchmarks

Measured on {run.when} by `make bench`, {_runs(run)}, on {machine["cores"]} shared cores
({machine["processor"]}, load average {machine["load"]}), {machine["memory_gib"]} GiB, {machine["system"]},
Python {machine["python"]}, {packages}.

PostgreSQL is the embedded one with durable settings (fsync, synchronous commits, logged tables), on the
same cores. All implementations that are compared agreed on the same rows before a time counted.
{_measured_again(run)}[benchmarks.json](benchmarks.json) has every figure."""


def _measured_again(run: Run) -> str:
    if not run.measured_again:
        return ""
    return f"Measured again after a change, {_runs(run)} by themselves: {', '.join(run.measured_again)}.\n"


def _aims(run: Run) -> str:
    return f"## What was to be reached\n\n{_aims_table(read_aims(run))}"


def _aims_table(aims: Iterable[Aim]) -> str:
    lines = [(aim.what, aim.reach, aim.measured, "yes" if aim.is_reached else "**no**") for aim in aims]
    return _table(("", "to reach", "measured", "reached"), lines)


def _runs(run: Run) -> str:
    return "one run" if run.runs == 1 else f"the median of {run.runs} runs"


def _spread(run: Run) -> str:
    wide = [figure for figure in run.figures if figure.slowest > WIDE * figure.fastest]
    rows = [
        (f"{figure.group}: {figure.name}", seconds(figure.fastest), seconds(figure.slowest), _reason(figure))
        for figure in wide
    ]
    head = f"## How far the runs lie apart\n\n{len(run.figures) - len(wide)} of {len(run.figures)} figures"
    head += f" have a slowest run of at most {WIDE} x their fastest.\n"
    return f"{head}\n{_table(('', 'fastest', 'slowest', 'why'), rows)}" if rows else head.strip()


def _reason(figure: Figure) -> str:
    reasons = (why for part, why in SPREAD_REASONS.items() if part in f"{figure.group}: {figure.name}")
    return next(reasons, "**not explained**")


def _start_dates(run: Run) -> str:
    names = ("", "tracked", "rows measured", "µs a row", f"{run.sizes['drop_rows']:,} rows")
    rows = []
    for figure in run.find("start dates"):
        facts = figure.facts
        each = figure.seconds / facts["rows"] * 1e6
        day = seconds(for_a_day(run, figure))
        rows.append((facts["how"], f"{facts['tracked']:,}", f"{facts['rows']:,}", f"{each:,.2g}", day))
    return f"""## Start dates of a drop

The step that once took over an hour. The row-wise list is built anew for each row, as it was then; it was
timed on as many rows as the table says, and the last column is the slope times the rows of the day.

{_table(names, rows)}

![Seconds against rows](images/benchmark-start-dates.svg)"""


def _planning(run: Run) -> str:
    rows = [
        (
            figure.name,
            seconds(figure.seconds),
            *(seconds(figure.facts[asset]) for asset in ASSETS[:3]),
            seconds(figure.facts["run"] - figure.seconds),
            size(figure.facts["peak_bytes"]),
        )
        for figure in [*run.find("planning a day"), *run.find("a big day")]
        if "run" in figure.facts
    ]
    bare = [
        (figure.name, seconds(figure.seconds), *(seconds(figure.facts[part]) for part in _TRANSFERS))
        for figure in run.find("planning a day")
        if "drop" in figure.facts
    ]
    names = ("", "seconds", "input", "tracked", "jobs", "Dagster besides", "peak memory")
    return f"""## Planning a day, database to database

Each time a process of its own plans the day through Dagster: read and validate the drop, take it and the
viewings into the lake, extend the state, plan and write {2 * run.sizes["viewed"]:,} jobs.
The drop is read and planned in parts, so that memory does not grow with it; the server sorts it within
`work_mem` of 256 MB.

{_table(names, rows)}

The bare transfer moves the same rows and nothing else: drop, viewings and state out through ADBC, the
same jobs in through COPY.

{_table(("", "seconds", "drop", "viewings", "state", "jobs in"), bare)}"""


def _fan_out(run: Run) -> str:
    rows = [
        (figure.name, seconds(figure.seconds), f"{1e6 / figure.rate:,.3g}") for figure in run.find("fan-out")
    ]
    return "## Fan-out\n\n" + _table(("", "seconds", "µs a job"), rows)


def _fleet(run: Run) -> str:
    rows = [
        (figure.name, seconds(figure.seconds), "" if "bare" in figure.name else f"{figure.rate:,.0f}")
        for figure in run.find("the fleet")
    ]
    read = run.named("the fleet", "bare read")
    return f"""## The fleet on real jobs

Read the viewings from the lake, compute, write the outcome: {2 * run.sizes["viewed"]:,} jobs over
{run.sizes["viewings"]:,} viewings of four weeks; two workers, chunks of 2,000 jobs and windows of 3 days
unless the line says otherwise. Chunks of 2,000 are the default: beyond them little is gained, and more is
repeated when a worker is lost. A tenth that catches up makes it {read.facts["viewings"]:,} viewings over 400
days; those jobs go last and in smaller chunks.

{_table(("", "seconds", "jobs per second"), rows)}

![Jobs per second](images/benchmark-fleet.svg)"""


def _engines(run: Run) -> str:
    figures = run.some("engines")
    lines = [
        (
            figure.name,
            f"{figure.facts['jobs']:,}",
            seconds(figure.seconds),
            seconds(figure.fastest),
            seconds(figure.slowest),
            times(fleet.seconds / figure.seconds),
        )
        for figure in figures
        for fleet in figures
        if fleet.name.startswith("two workers") and fleet.facts["window_days"] == figure.facts["window_days"]
    ]
    return f"""## The fleet beside one statement of another engine

The engines take turns, round by round. Two workers read the lake, compute all jobs and write the outcome of
each; a statement computes `reach` alone, for the jobs that ask for it, and writes nothing. PostgreSQL reads
the input's own `viewings` with its indexes, in a session with `work_mem` of 256 MB and parallel workers;
DuckDB reads the lake's own Parquet files with two threads. What both find equals `published.reach`.

{_table(("", "jobs", "seconds", "fastest run", "slowest run", "the fleet takes"), lines)}"""


def _lake(run: Run) -> str:
    (read,) = run.find("input reads")
    (taken,) = run.find("the lake")
    facts = read.facts
    each = [
        ("rows fetched from the table", facts["rows"]),
        ("index entries passed", facts["entries"]),
        ("viewings that the jobs for `reach` were computed from", facts["analysed"]),
    ]
    lines = [(what, f"{count:,}", f"{count / facts['viewings']:.3g}") for what, count in each]
    of_lake = taken.facts
    return f"""## What is read from the input, and what the lake takes

{read.name}, worked to published results one after the other, with {facts["viewings"]:,} viewings in the
input. The first day takes those of the days before it. What the input's own server counted for `viewings`:

{_table(("", "in all", "for each viewing"), lines)}

Index entries are passed to find the rows of a day, once, and to count a day's viewings again on each of the
{facts["late_days"]} days after it, since some may arrive late.

A day of {of_lake["taken"]:,} viewings is read, ordered, written and committed in {seconds(taken.seconds)}
(fastest run {seconds(taken.fastest)}, slowest {seconds(taken.slowest)}). {of_lake["viewings"]:,} viewings of
{of_lake["days"]} days are {size(of_lake["bytes"])} in the lake:
{octets(of_lake["bytes"] / of_lake["viewings"])} each."""


def _large(run: Run) -> str:
    viewings = [
        (
            figure.name,
            seconds(figure.facts["input_episodes"]),
            f"{1e6 * figure.seconds / figure.facts['viewings']:.3g}",
            f"{1e6 * figure.facts['processor'] / figure.facts['viewings']:.3g}",
            size(figure.facts["peak_bytes"]),
            size(figure.facts["bytes"]),
            f"{figure.facts['bytes'] / figure.facts['viewings']:.3g}",
        )
        for figure in run.find("large: viewings")
    ]
    jobs = [
        (
            f"{figure.facts['jobs']:,} jobs: {part}",
            seconds(figure.facts[part]),
            f"{1e6 * figure.facts[part] / figure.facts['jobs']:.3g}",
            size(figure.facts[f"{process}_peak_bytes"]),
        )
        for figure in run.find("large: jobs")
        for part, process in (("planned", "planning"), ("worked", "workers"), ("published", "publishing"))
    ]
    kept = [
        (
            f"{figure.facts['jobs']:,} jobs",
            *(f"{figure.facts[f'{table}_bytes'] / figure.facts['jobs']:,.0f}" for table in _KEPT),
        )
        for figure in run.find("large: jobs")
    ]
    names = ("", "seconds", "µs a viewing", "µs of a core", "peak memory", "in the lake", "bytes a viewing")
    return f"""## Large days

Measured on {run.when} by `make bench-large`, {_runs(run)}, on {run.machine["cores"]} shared cores
({run.machine["processor"]}, load average {run.machine["load"]}, of which about 2 by this),
{run.machine["memory_gib"]} GiB; [{LARGE_FIGURES}]({LARGE_FIGURES}) has every figure.
Each day begins with an empty lake and no history, and runs through Dagster in processes of its own. Peak
memory is that of the process (`VmHWM`); PostgreSQL's is not in it.{_not_measured(run)}

{_aims_table(read_large_aims(run))}

A day's viewings taken into the lake, with a drop of 20,000 rows. What the whole process takes of a core for
each does not depend on what else the machine does meanwhile:

{_table(names, viewings)}

A day's jobs, windows of 3 days and four viewings of each episode, two workers. `worked` is from the fan-out
to the last outcome, its memory that of the largest process of the workers; `published` is `job_outcomes` and
`published_results` with their checks:

{_table(("", "seconds", "µs a job", "peak memory"), jobs)}

What PostgreSQL keeps of each job, indexes included, in bytes:

{_table(("", *_KEPT), kept)}"""


def _not_measured(run: Run) -> str:
    lacking = [
        f"{count:,} {what}"
        for what in ("viewings", "jobs")
        for count in run.sizes[f"large_{what}"]
        if not run.find(f"large: {what}", **{what: count})
    ]
    return f"\n\n**Not measured yet**: days of {' and of '.join(lacking)}." if lacking else ""


def _nights(run: Run) -> str:
    facts = run.find("nights")[0].facts
    parts = ("planned", "worked", "published", "checked")
    rows = [
        (f"night {number}", *(seconds(facts[part][number - 1]) for part in parts))
        for number in range(1, len(facts["worked"]) + 1)
    ]
    return f"""## Nights one after the other

{facts["jobs"]:,} jobs each night, two workers that stay, and `ANALYZE` after each, as autovacuum takes its
statistics: they know all days but the one that is worked. What the asset checks read back is `checked`.

{_table(("", *parts), rows)}"""


def _backfill(run: Run) -> str:
    rows = [
        (
            figure.name,
            seconds(figure.seconds),
            *(seconds(figure.facts[asset]) if asset in figure.facts else "" for asset in ASSETS),
            seconds(figure.facts["dagster"]),
        )
        for figure in run.find("backfill")
    ]
    names = ("", "seconds", "input", "tracked", "jobs", "outcomes", "publish", "Dagster")
    return f"""## Backfills

One Dagster run over all days, {run.sizes["backfill_rows"]:,} rows and a hundred jobs each. The last column is
what Dagster does besides: writing events, mostly.

{_table(names, rows)}

![Milliseconds of each day](images/benchmark-backfill.svg)"""


def _labs(run: Run) -> str:
    rows = [
        (
            figure.name,
            seconds(figure.seconds),
            seconds(figure.fastest),
            seconds(figure.slowest),
            size(figure.facts["peak_bytes"]),
            number(figure.facts["sessions"]),
        )
        for figure in run.find("labs")
        if "peak_bytes" in figure.facts
    ]
    facts = run.named("labs", "cloned whole").facts
    pseudonyms = run.named("labs", "pseudonyms")
    names = ("", "seconds", "fastest run", "slowest run", "peak memory", "sessions at the source")
    return f"""## Labs

A published day of {run.sizes["drop_rows"]:,} catalogue rows, {facts["jobs"]:,} jobs, {facts["viewings"]:,}
viewings of four weeks and {facts["tracked"]:,} tracked episodes, taken and loaded into a new lab. That
includes setting its databases up. Verifying computes all outcomes anew. Memory is that of the largest of its
processes.

{_table(names, rows)}

{pseudonyms.facts["ids"]:,} ids get pseudonyms in {seconds(pseudonyms.seconds)}:
{ids_rate(pseudonyms.facts["ids"] / pseudonyms.seconds)}."""


def _latency(run: Run) -> str:
    (latency,) = run.some("latency")
    facts = latency.facts
    return f"""## Latency

From a planned day to its first outcome in a running system: {seconds(latency.seconds)} at the median, of
which {seconds(facts["until_handed_out"])} pass until the sensor hands it out (it ticks every
{facts["sensor_seconds"]} s) and {seconds(facts["after_that"])} after that."""


def _rest(run: Run) -> str:
    others: list[Figure] = [
        *(
            figure
            for group in (
                "publishing",
                "profiling",
                "imports",
                "demo",
                "commands",
                "the login",
                "the Results page",
                "a download",
                "explaining",
            )
            for figure in run.find(group)
        )
    ]
    return f"""## Publishing, profiles, the demo, the login, the Results page, explaining a row

{_table(("", "seconds"), [(figure.name, seconds(figure.seconds)) for figure in others])}"""


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    if sys.argv[1] == "--large":
        main_large(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
