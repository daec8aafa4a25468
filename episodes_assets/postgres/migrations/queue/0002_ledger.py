"""The ledger: each day's plan, its jobs, their outcomes, and the messages that carry them."""

from alembic import op

revision = "queue_0002"
down_revision = "queue_0001"
oldest_beside = "queue_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE SCHEMA ledger;

        CREATE TABLE ledger.plans (
            plan_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            day date NOT NULL,
            jobs integer NOT NULL CHECK (jobs >= 0),
            checksum text NOT NULL,
            snapshot_id text NOT NULL,
            code_version text NOT NULL,
            planned_at timestamptz NOT NULL DEFAULT now(),
            fanned_out_at timestamptz,
            superseded_at timestamptz
        );
        CREATE UNIQUE INDEX plans_one_current_for_each_day
            ON ledger.plans (day) WHERE superseded_at IS NULL;

        CREATE TABLE ledger.jobs (
            job_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            plan_id bigint NOT NULL REFERENCES ledger.plans ON DELETE CASCADE,
            chunk integer NOT NULL,
            epid bigint NOT NULL,
            algorithm_id smallint NOT NULL,
            window_start date NOT NULL,
            state text NOT NULL DEFAULT 'waiting'
                CHECK (state IN ('waiting', 'running', 'succeeded', 'held')),
            starts smallint NOT NULL DEFAULT 0,
            claim uuid,
            claimed_by text,
            claimed_at timestamptz,
            error text,
            traceback text,
            CONSTRAINT running_jobs_are_claimed CHECK (state <> 'running' OR claim IS NOT NULL),
            CONSTRAINT held_jobs_say_why CHECK (state <> 'held' OR error IS NOT NULL),
            CONSTRAINT one_job_for_each_episode_and_algorithm UNIQUE (plan_id, epid, algorithm_id)
        ) WITH (fillfactor = 70);
        CREATE INDEX jobs_of_a_chunk ON ledger.jobs (plan_id, chunk);
        CREATE INDEX jobs_not_succeeded ON ledger.jobs (plan_id, chunk) WHERE state <> 'succeeded';

        CREATE TABLE ledger.outcomes (
            job_id bigint PRIMARY KEY REFERENCES ledger.jobs ON DELETE CASCADE,
            covered_from date,
            metrics jsonb NOT NULL,
            algorithm_version text NOT NULL,
            worker text NOT NULL,
            finished_at timestamptz NOT NULL DEFAULT now()
        );

        -- PgQueuer's message for each chunk of a plan's jobs.
        CREATE TABLE ledger.messages (
            plan_id bigint NOT NULL REFERENCES ledger.plans ON DELETE CASCADE,
            chunk integer NOT NULL,
            message_id bigint NOT NULL,
            PRIMARY KEY (plan_id, chunk)
        );

        -- One number, never NULL, for whatever scales the fleet: jobs waiting plus running.
        CREATE VIEW ledger.backlog AS
            SELECT count(*) AS jobs
            FROM ledger.jobs JOIN ledger.plans USING (plan_id)
            WHERE state <> 'succeeded' AND state <> 'held' AND fanned_out_at IS NOT NULL;
        """
    )


def downgrade() -> None:
    op.execute("DROP SCHEMA ledger CASCADE")
