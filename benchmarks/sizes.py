"""How much is measured: production size, or just enough to see that everything still runs."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sizes:
    """Rows, days and repetitions.

    Attributes:
        name: Of the set of sizes.
        drop_rows: Catalogue rows of the day.
        viewed: Episodes viewed on the day; each has two jobs.
        live: Episodes viewed on the days before it.
        viewings: Viewings of the 28 days up to the day.
        catch_up_days: For how many days before those there are viewings of catching-up episodes.
        tracked: Sizes of the state.
        start_date_rows: Rows of which all implementations' start dates are timed.
        list_rows: The most rows that the row-wise list gets.
        slow_jobs: Jobs for engines that are too slow for all.
        dynamic_outputs: For Dagster's own fan-out.
        fan_out_jobs: Planned jobs that one tick hands out.
        compared_windows: Days of the windows for which other engines compute the same.
        read_days: Days worked one after the other, with windows of as many days, while reads are counted.
        read_viewings: Viewings of each of them.
        large_viewings: Viewings of a large day, one day after the other.
        large_jobs: Jobs of a large day, one day after the other.
        backfill_days: Days of the backfill to planned jobs.
        backfill_rows: Catalogue rows of each.
        published_days: Days of the backfill to published results.
        results_days: Days of the history whose results are looked at, each with all jobs of a day.
        latency_days: Days planned in a running system, if any.
        nights: Days worked one after the other, with statistics taken in between.
        big_factor: How many times the day's rows the big day has; 1 if none is worked.
        rounds: Repetitions; the median counts.
    """

    name: str = "full"
    drop_rows: int = 1_402_909
    viewed: int = 25_000
    live: int = 40_000
    viewings: int = 10_000_000
    catch_up_days: int = 372
    tracked: tuple[int, ...] = (50_000, 1_400_000)
    start_date_rows: tuple[int, ...] = (1_000, 10_000, 100_000, 1_402_909)
    list_rows: int = 4_000
    slow_jobs: int = 2_000
    dynamic_outputs: int = 200
    fan_out_jobs: tuple[int, ...] = (50_000, 500_000)
    chunk_jobs: tuple[int, ...] = (100, 500, 1_000, 2_000, 5_000, 10_000)
    workers: tuple[int, ...] = (1, 2, 3)
    window_days: tuple[int, ...] = (1, 3, 7, 28)
    compared_windows: tuple[int, ...] = (28, 3)
    read_days: int = 28
    read_viewings: int = 50_000
    large_viewings: tuple[int, ...] = (1_000_000, 10_000_000, 100_000_000)
    large_jobs: tuple[int, ...] = (50_000, 500_000, 5_000_000)
    backfill_days: int = 878
    backfill_rows: int = 10_000
    published_days: int = 878
    results_days: int = 878
    latency_days: int = 9
    nights: int = 4
    big_factor: int = 10
    rounds: int = 3
    quick: bool = field(default=False)

    @property
    def jobs(self) -> int:
        """Jobs of the day."""
        return 2 * self.viewed


FULL = Sizes()
QUICK = Sizes(
    name="quick",
    drop_rows=20_000,
    viewed=500,
    live=800,
    viewings=28_000,
    catch_up_days=10,
    tracked=(1_000,),
    start_date_rows=(1_000, 20_000),
    list_rows=200,
    slow_jobs=20,
    dynamic_outputs=3,
    fan_out_jobs=(1_000,),
    chunk_jobs=(),
    workers=(2,),
    window_days=(),
    compared_windows=(3,),
    read_days=2,
    read_viewings=2_000,
    large_viewings=(2_000, 20_000),
    large_jobs=(200, 2_000),
    backfill_days=3,
    backfill_rows=300,
    published_days=2,
    results_days=3,
    latency_days=0,
    nights=2,
    big_factor=1,
    rounds=1,
    quick=True,
)
