"""Who works and how long it takes: the workers' signs of life, and the seconds of jobs computed together."""

from alembic import op

revision = "queue_0006"
down_revision = "queue_0005"
oldest_beside = "queue_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        -- What each worker process says of itself every few seconds. Only for people to read: nothing
        -- is claimed, fenced or given to another by it, so it names plans and chunks without holding them.
        CREATE TABLE ledger.workers (
            worker text PRIMARY KEY,
            host text NOT NULL,
            pid integer NOT NULL,
            release text NOT NULL,
            started_at timestamptz NOT NULL,
            seen_at timestamptz NOT NULL DEFAULT now(),
            stopped_at timestamptz,
            plan_id bigint,
            chunk integer,
            jobs integer,
            working_since timestamptz,
            finished bigint NOT NULL DEFAULT 0,
            CONSTRAINT work_is_told_as_a_whole
                CHECK (num_nonnulls(plan_id, chunk, jobs, working_since) IN (0, 4))
        ) WITH (fillfactor = 50);

        -- Jobs whose outcomes were computed together and written in one statement with this row.
        CREATE TABLE ledger.batches (
            plan_id bigint NOT NULL,
            first_position integer NOT NULL,
            chunk integer NOT NULL,
            jobs integer NOT NULL CHECK (jobs > 0),
            seconds double precision NOT NULL CHECK (seconds >= 0),
            algorithm_ids smallint[] NOT NULL,
            algorithm_jobs integer[] NOT NULL,
            algorithm_seconds double precision[] NOT NULL,
            worker text NOT NULL,
            finished_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (plan_id, first_position),
            FOREIGN KEY (plan_id, first_position) REFERENCES ledger.jobs ON DELETE CASCADE
        );
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE ledger.batches, ledger.workers")
