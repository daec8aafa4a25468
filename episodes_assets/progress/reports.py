"""When to report progress: often at first, ever more seldom while the work goes on."""

# Each report is kept for ever in Dagster's event log. At this share of the time that has passed, six hours
# of work with at first ten seconds between reports make 240, a whole day 310.
SHARE_OF_ELAPSED = 0.02


def pause_between_reports(shortest: float, elapsed: float) -> float:
    """Seconds from one report to the next.

    Args:
        shortest: Seconds between the first ones.
        elapsed: Seconds since the reports began.
    """
    return max(shortest, SHARE_OF_ELAPSED * elapsed)
