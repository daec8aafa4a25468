"""The accumulated state, and what consumers read of the published days."""

from alembic import op

revision = "results_0002"
down_revision = "results_0001"
oldest_beside = "results_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE SCHEMA state;

        -- Each tracked episode once; the state as of a day is a filter on tracked_on.
        CREATE TABLE state.tracked_episodes (
            epid bigint PRIMARY KEY,
            tracked_on date NOT NULL
        );
        CREATE INDEX tracked_episodes_by_day ON state.tracked_episodes (tracked_on);

        -- What each day added, chained by checksum to the day before.
        CREATE TABLE state.tracked_days (
            day date PRIMARY KEY,
            origin text NOT NULL CHECK (origin IN ('beginning', 'day', 'import')),
            newly_tracked bigint NOT NULL,
            total bigint NOT NULL,
            checksum text NOT NULL,
            previous_checksum text,
            snapshot_id text,
            code_version text NOT NULL,
            recorded_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT only_a_first_day_has_no_yesterday
                CHECK ((origin = 'day') = (previous_checksum IS NOT NULL))
        );

        CREATE SCHEMA published;

        CREATE TABLE published.results (
            day date NOT NULL,
            epid bigint NOT NULL,
            algorithm_id smallint NOT NULL,
            window_start date NOT NULL,
            window_end date NOT NULL,
            covered_from date,
            metrics jsonb NOT NULL,
            PRIMARY KEY (day, epid, algorithm_id)
        );

        CREATE TABLE published.days (
            day date PRIMARY KEY,
            jobs integer NOT NULL,
            rows integer NOT NULL,
            checksum text NOT NULL,
            plan_id bigint NOT NULL,
            plan_checksum text NOT NULL,
            code_version text NOT NULL,
            published_at timestamptz NOT NULL DEFAULT now()
        );
        """
    )


def downgrade() -> None:
    op.execute("DROP SCHEMA published CASCADE; DROP SCHEMA state CASCADE")
