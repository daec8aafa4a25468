"""What was to be reached, and whether it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.figures import Figure, Run

LONG_WINDOW, SHORT_WINDOW = 28, 3  # days


@dataclass(frozen=True)
class Aim:
    """A figure that was to be reached.

    Attributes:
        what: Was measured.
        reach: What was asked.
        measured: What was found.
        is_reached: Whether that is enough.
    """

    what: str
    reach: str
    measured: str
    is_reached: bool


def at_most(what: str, limit: float, value: float, show: Callable[[float], str], of: str = "") -> Aim:
    """An aim that a value stays below a limit."""
    return Aim(what, f"at most {show(limit)}{of}", show(value), value <= limit)


def at_least(what: str, limit: float, value: float, show: Callable[[float], str], of: str = "") -> Aim:
    """An aim that a value gets above a limit."""
    return Aim(what, f"at least {show(limit)}{of}", show(value), value >= limit)


def exactly(what: str, goal: float, value: float, show: Callable[[float], str]) -> Aim:
    """An aim that a value is no other."""
    return Aim(what, f"exactly {show(goal)}", show(value), value == goal)


def times(ratio: float) -> str:
    """A ratio, for people."""
    return f"{ratio:,.0f} x" if ratio >= 100 else f"{ratio:.3g} x"


def seconds(value: float) -> str:
    """A time, for people."""
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def size(value: float) -> str:
    """Bytes, for people."""
    return f"{value / 1e6:,.0f} MB"


def kilobytes(value: float) -> str:
    """Fewer bytes, for people."""
    return f"{value / 1e3:,.0f} kB"


def rate(value: float) -> str:
    """Jobs in a second, for people."""
    return f"{value:,.0f} jobs/s"


def ids_rate(value: float) -> str:
    """Ids in a second, for people."""
    return f"{value / 1e6:.3g} million ids/s"


def number(value: float) -> str:
    """A number without a unit, for people."""
    return f"{value:.3g}"


def octets(value: float) -> str:
    """Bytes for each row, for people."""
    return f"{value:.3g} bytes"


def read_aims(run: Run) -> Iterator[Aim]:
    """All aims of a run."""
    parts = (
        _start_dates, _planning, _fan_out, _long_windows, _short_windows, _fleet, _latency, _lake,
        _publishing, _results, _explaining, _nights, _backfill, _labs, _pseudonyms, _profiling, _start_up,
    )  # fmt: skip
    for aims in run.parts(map(_at_once, parts)):
        yield from aims


def _at_once(aims: Callable[[Run], Iterator[Aim]]) -> Callable[[Run], list[Aim]]:
    """So that what is not measured is found before the first of them."""
    return lambda run: list(aims(run))


def read_large_aims(run: Run) -> Iterator[Aim]:
    """All aims of a run of the large days."""
    *smaller, largest = run.find("large: viewings")
    yield at_most(f"{largest.name}: memory", 1e9, largest.facts["peak_bytes"], size)
    for figure in smaller:
        of = f" that of {figure.name}"
        yield at_most(f"{largest.name}, for each", 1.2, _each(largest) / _each(figure), times, of)
    usual, *_, most = run.find("large: jobs")
    for part in ("planned", "worked", "published"):
        ratio = most.facts[part] / most.facts["jobs"] / (usual.facts[part] / usual.facts["jobs"])
        of = f" that of {usual.facts['jobs']:,}"
        yield at_most(f"{most.facts['jobs']:,} jobs {part}, for each", 1.2, ratio, times, of)


def _each(figure: Figure) -> float:
    return float(figure.seconds / figure.facts["viewings"])


def for_a_day(run: Run, figure: Figure) -> float:
    """Seconds for all rows of the day, from the slope of those measured."""
    return float(figure.seconds * run.sizes["drop_rows"] / figure.facts["rows"])


def _start_dates(run: Run) -> Iterator[Aim]:
    for tracked in run.sizes["tracked"]:
        taken = {
            how: for_a_day(run, run.find("start dates", how=how, tracked=tracked)[-1])
            for how in ("whole columns", "row-wise set", "row-wise list")
        }
        whole = taken["whole columns"]
        what = f"start dates, {tracked:,} tracked"
        yield at_least(what, 20_000, taken["row-wise list"] / whole, times, " the row-wise list")
        yield at_least(what, 200, taken["row-wise set"] / whole, times, " the row-wise set")


def _planning(run: Run) -> Iterator[Aim]:
    planned = [figure for figure in run.find("planning a day") if "planned" in figure.name]
    for figure in planned:
        (bare,) = [
            other
            for other in run.find("planning a day", tracked=figure.facts["tracked"])
            if other is not figure
        ]
        what = f"a day {figure.name}"
        yield at_most(what, 2.5, figure.seconds / bare.seconds, times, " the bare transfer")
        yield at_most(f"{what}: memory", 1e9, figure.facts["peak_bytes"], size)
    for big in run.find("a big day"):
        yield at_most(
            f"a day of {big.facts['rows']:,} rows",
            12,
            big.seconds / planned[0].seconds,
            times,
            f" that of {planned[0].facts['rows']:,}",
        )
        yield at_most("its memory", 1e9, big.facts["peak_bytes"], size)


def _fan_out(run: Run) -> Iterator[Aim]:
    first, *more = [figure for figure in run.find("fan-out") if "tick" in figure.name]
    yield at_most(first.name, 2, first.seconds, seconds)
    for figure in more:
        yield at_most(f"{figure.name}, per job", 1.2, first.rate / figure.rate, times, " the same")


def _long_windows(run: Run) -> Iterator[Aim]:
    what, (fleet, postgresql, duckdb) = _two_workers(run, LONG_WINDOW)
    yield at_least(what, 20_000, fleet.rate, rate)
    yield at_most(what, 1, fleet.seconds / postgresql.seconds, times, " one PostgreSQL statement")
    yield at_most(what, 3, fleet.seconds / duckdb.seconds, times, " one DuckDB statement")


def _short_windows(run: Run) -> Iterator[Aim]:
    what, (fleet, *_) = _two_workers(run, SHORT_WINDOW)
    yield at_least(what, 40_000, fleet.rate, rate)


def _two_workers(run: Run, window_days: int) -> tuple[str, list[Figure]]:
    figures = run.some("engines", window_days=window_days)
    jobs = figures[0].facts["jobs"]
    return f"two workers, {jobs:,} jobs, windows of {window_days} days", figures


def _fleet(run: Run) -> Iterator[Aim]:
    two = run.named("the fleet", "workers: 2")
    what = f"two workers, {two.facts['jobs']:,} jobs"
    procrastinate = run.named("the fleet", "Procrastinate")
    yield at_least(what, 20, two.rate / procrastinate.rate, times, " Procrastinate")
    catching_up, read = run.named("the fleet", "a tenth catches"), run.named("the fleet", "bare read")
    yield at_most(catching_up.name, 2, catching_up.seconds, seconds)
    yield at_most(catching_up.name, 2, catching_up.seconds / read.seconds, times, " the bare read")


def _latency(run: Run) -> Iterator[Aim]:
    (latency,) = run.some("latency")
    interval = latency.facts["sensor_seconds"]
    what = f"a planned day to its first outcome, while the sensor ticks every {interval} s"
    yield at_most(what, interval + 2, latency.seconds, seconds)


def _lake(run: Run) -> Iterator[Aim]:
    (read,) = run.find("input reads")
    what = f"rows read from the input for each viewing, {read.name}"
    # Less would mean that the server has not told what it read, more that some were read again.
    yield exactly(what, 1, read.facts["rows"] / read.facts["viewings"], number)
    (taken,) = run.find("the lake")
    yield at_most("a viewing in the lake", 12, taken.facts["bytes"] / taken.facts["viewings"], octets)


def _publishing(run: Run) -> Iterator[Aim]:
    published, copied = run.named("publishing", "published"), run.named("publishing", "bare")
    what = f"publishing {published.facts['jobs']:,} outcomes"
    yield at_most(what, 2, published.seconds / copied.seconds, times, " the bare COPY")


def _nights(run: Run) -> Iterator[Aim]:
    nights = run.find("nights")[0]
    for part in ("worked", "published", "checked"):
        first, *others = nights.facts[part]
        what = f"a later night is {part}"
        yield at_most(what, 1.5, max(others) / first, times, " the first, whose tables are small")


def _profiling(run: Run) -> Iterator[Aim]:
    plain, *profiled = run.find("profiling")
    for figure in profiled:
        what = f"{figure.name} {figure.facts['rate']} times a second"
        yield at_most(what, 1.05, figure.seconds / plain.seconds, times, " that without a profile")
        yield at_most("its profile", 1e6, figure.facts["bytes"], kilobytes)


def _backfill(run: Run) -> Iterator[Aim]:
    planned = run.named("backfill", "planned")
    yield at_most(f"{planned.name}, viewings taken as well", 120, planned.seconds, seconds)
    last = planned.facts["last_days"] / planned.facts["first_days"]
    yield at_most("its last days", 1.2, last, times, " its first")


def _labs(run: Run) -> Iterator[Aim]:
    for part, limit in (("cloned whole", 60), ("cloned, a share of 5%", 10)):
        clone = run.named("labs", part)
        yield at_most(f"a day of {clone.facts['jobs']:,} jobs {part}", limit, clone.seconds, seconds)
        yield at_most(f"{part}: memory", 1e9, clone.facts["peak_bytes"], size)
        yield at_most(f"{part}: sessions at the source", 2, clone.facts["sessions"], number)


def _pseudonyms(run: Run) -> Iterator[Aim]:
    pseudonyms = run.named("labs", "pseudonyms")
    yield at_least("pseudonyms of viewers", 4e6, pseudonyms.facts["ids"] / pseudonyms.seconds, ids_rate)


def _results(run: Run) -> Iterator[Aim]:
    for page in run.some("the Results page"):
        yield at_most(f"Results: {page.name}", 0.3, page.seconds, seconds)


def _explaining(run: Run) -> Iterator[Aim]:
    for figure in run.some("explaining"):
        yield at_most(figure.name, 1, figure.seconds, seconds)


def _start_up(run: Run) -> Iterator[Aim]:
    beyond = run.named("imports", "definitions").seconds - run.named("imports", "dagster").seconds
    yield at_most("importing the definitions, beyond Dagster", 1, beyond, seconds)
    for each in run.find("commands"):
        yield at_most(f"`{each.name}`", 0.4 if "--help" in each.name else 0.7, each.seconds, seconds)
