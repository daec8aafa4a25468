"""How many jobs the fleet finished a second, over the last minutes."""

from episodes_assets.postgres.connect import Connection


def read_throughput(connection: Connection, *, bucket_seconds: float, buckets: int) -> list[float]:
    """Jobs a second in equal spans of time up to now, the oldest first.

    A batch counts over the whole time that it took, not at the moment when it was written.

    Args:
        connection: To `queue`.
        bucket_seconds: How long a span is.
        buckets: How many.
    """
    rows = connection.execute(
        """
        WITH batch AS (
            SELECT jobs, ended, ended + greatest(seconds, 0.001) AS began
            FROM ledger.batches
            -- Ages in seconds, so `began` is the greater one. Written while this begins counts as just now.
            CROSS JOIN LATERAL (
                SELECT greatest(extract(epoch FROM now() - finished_at)::float8, 0) AS ended
            ) AS age
            WHERE finished_at > now() - make_interval(secs => %(seconds)s * %(buckets)s)
        )
        SELECT bucket, sum(
            jobs * (least(began, (bucket + 1) * %(seconds)s) - greatest(ended, bucket * %(seconds)s))
            / (began - ended)
        ) / %(seconds)s
        FROM batch CROSS JOIN LATERAL generate_series(
            floor(ended / %(seconds)s)::int,
            least(floor(began / %(seconds)s), %(buckets)s - 1)::int
        ) AS bucket
        GROUP BY bucket
        """,
        {"seconds": float(bucket_seconds), "buckets": buckets},
    ).fetchall()
    found = {int(bucket): max(float(rate), 0.0) for bucket, rate in rows}
    return [found.get(bucket, 0.0) for bucket in reversed(range(buckets))]
