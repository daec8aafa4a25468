"""Claims, starts and counters move from each job to its chunk, so that a job is written just once."""

from alembic import op

revision = "queue_0003"
down_revision = "queue_0002"
oldest_beside = "queue_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        DROP VIEW ledger.backlog;
        ALTER TABLE ledger.jobs RENAME TO old_jobs;
        ALTER TABLE ledger.outcomes RENAME TO old_outcomes;
        ALTER INDEX ledger.jobs_pkey RENAME TO old_jobs_pkey;
        ALTER INDEX ledger.outcomes_pkey RENAME TO old_outcomes_pkey;
        ALTER TABLE ledger.old_jobs
            DROP CONSTRAINT one_job_for_each_episode_and_algorithm,
            ADD COLUMN position integer;
        UPDATE ledger.old_jobs SET position = numbered.position
        FROM (
            SELECT job_id, row_number() OVER (
                PARTITION BY plan_id ORDER BY chunk, epid, algorithm_id) - 1 AS position
            FROM ledger.old_jobs
        ) AS numbered
        WHERE numbered.job_id = old_jobs.job_id;

        -- A chunk is what one message names and one worker claims: a range of a plan's jobs.
        CREATE TABLE ledger.chunks (
            plan_id bigint NOT NULL REFERENCES ledger.plans ON DELETE CASCADE,
            chunk integer NOT NULL,
            first_position integer NOT NULL,
            jobs integer NOT NULL CHECK (jobs > 0),
            succeeded integer NOT NULL DEFAULT 0,
            held integer NOT NULL DEFAULT 0,
            starts smallint NOT NULL DEFAULT 0,
            priority smallint NOT NULL DEFAULT 0,
            message_id bigint,
            claim uuid,
            claimed_by text,
            claimed_at timestamptz,
            PRIMARY KEY (plan_id, chunk),
            CONSTRAINT a_job_succeeds_or_is_held_once
                CHECK (succeeded >= 0 AND held >= 0 AND succeeded + held <= jobs)
        ) WITH (fillfactor = 50);
        CREATE INDEX chunks_not_succeeded ON ledger.chunks (plan_id) WHERE succeeded < jobs;

        INSERT INTO ledger.chunks (plan_id, chunk, first_position, jobs, succeeded, held, starts, message_id)
        SELECT plan_id, chunk, min(position), count(*),
            count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'held'),
            coalesce(min(starts) FILTER (WHERE state IN ('waiting', 'running')), 0), min(message_id)
        FROM ledger.old_jobs LEFT JOIN ledger.messages USING (plan_id, chunk)
        GROUP BY plan_id, chunk;
        DROP TABLE ledger.messages;

        CREATE TABLE ledger.jobs (
            plan_id bigint NOT NULL REFERENCES ledger.plans ON DELETE CASCADE,
            position integer NOT NULL,
            epid bigint NOT NULL,
            algorithm_id smallint NOT NULL,
            window_start date NOT NULL,
            PRIMARY KEY (plan_id, position),
            CONSTRAINT one_job_for_each_episode_and_algorithm UNIQUE (plan_id, epid, algorithm_id)
        );
        INSERT INTO ledger.jobs
        SELECT plan_id, position, epid, algorithm_id, window_start FROM ledger.old_jobs;

        CREATE TABLE ledger.outcomes (
            plan_id bigint NOT NULL,
            position integer NOT NULL,
            covered_from date,
            metrics jsonb NOT NULL,
            algorithm_version text NOT NULL,
            worker text NOT NULL,
            finished_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (plan_id, position),
            FOREIGN KEY (plan_id, position) REFERENCES ledger.jobs ON DELETE CASCADE
        );
        INSERT INTO ledger.outcomes
        SELECT plan_id, position, covered_from, metrics, algorithm_version, worker, finished_at
        FROM ledger.old_outcomes JOIN ledger.old_jobs USING (job_id);

        -- Jobs that were started alone, because their batch failed or its worker was lost.
        CREATE TABLE ledger.lone_jobs (
            plan_id bigint NOT NULL,
            position integer NOT NULL,
            starts smallint NOT NULL DEFAULT 0,
            is_held boolean NOT NULL DEFAULT false,
            error text,
            traceback text,
            PRIMARY KEY (plan_id, position),
            FOREIGN KEY (plan_id, position) REFERENCES ledger.jobs ON DELETE CASCADE,
            CONSTRAINT held_jobs_say_why CHECK (NOT is_held OR error IS NOT NULL)
        );
        INSERT INTO ledger.lone_jobs
        SELECT plan_id, position, starts, state = 'held', error, traceback
        FROM ledger.old_jobs WHERE state = 'held' OR error IS NOT NULL;
        DROP TABLE ledger.old_outcomes;
        DROP TABLE ledger.old_jobs;

        -- docs/job-states.md draws these states.
        CREATE VIEW ledger.job_states AS
            SELECT jobs.plan_id, jobs.position, chunk, epid, algorithm_id, window_start,
                CASE
                    WHEN outcomes.position IS NOT NULL THEN 'succeeded'
                    WHEN is_held THEN 'held'
                    WHEN claim IS NOT NULL THEN 'running'
                    ELSE 'waiting'
                END AS state,
                chunks.starts + coalesce(lone_jobs.starts, 0) AS starts, error, traceback
            FROM ledger.jobs
            JOIN ledger.chunks ON chunks.plan_id = jobs.plan_id
                AND jobs.position >= first_position AND jobs.position < first_position + chunks.jobs
            LEFT JOIN ledger.outcomes
                ON outcomes.plan_id = jobs.plan_id AND outcomes.position = jobs.position
            LEFT JOIN ledger.lone_jobs
                ON lone_jobs.plan_id = jobs.plan_id AND lone_jobs.position = jobs.position;

        -- One number, never NULL, for whatever scales the fleet: jobs waiting plus running.
        CREATE VIEW ledger.backlog AS
            SELECT coalesce(sum(chunks.jobs - succeeded - held), 0)::bigint AS jobs
            FROM ledger.chunks JOIN ledger.plans USING (plan_id)
            WHERE succeeded < chunks.jobs AND fanned_out_at IS NOT NULL AND superseded_at IS NULL;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP VIEW ledger.backlog;
        ALTER TABLE ledger.jobs RENAME TO new_jobs;
        ALTER TABLE ledger.outcomes RENAME TO new_outcomes;
        ALTER INDEX ledger.jobs_pkey RENAME TO new_jobs_pkey;
        ALTER INDEX ledger.outcomes_pkey RENAME TO new_outcomes_pkey;
        ALTER TABLE ledger.new_jobs DROP CONSTRAINT one_job_for_each_episode_and_algorithm;
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
        INSERT INTO ledger.jobs (plan_id, chunk, epid, algorithm_id, window_start, state, starts, error,
            traceback)
        SELECT plan_id, chunk, epid, algorithm_id, window_start,
            CASE state WHEN 'running' THEN 'waiting' ELSE state END, starts, error, traceback
        FROM ledger.job_states ORDER BY plan_id, position;
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
        INSERT INTO ledger.outcomes
        SELECT job_id, covered_from, metrics, algorithm_version, worker, finished_at
        FROM ledger.new_outcomes JOIN ledger.new_jobs USING (plan_id, position)
        JOIN ledger.jobs USING (plan_id, epid, algorithm_id);
        CREATE TABLE ledger.messages (
            plan_id bigint NOT NULL REFERENCES ledger.plans ON DELETE CASCADE,
            chunk integer NOT NULL,
            message_id bigint NOT NULL,
            PRIMARY KEY (plan_id, chunk)
        );
        INSERT INTO ledger.messages SELECT plan_id, chunk, message_id FROM ledger.chunks
        WHERE message_id IS NOT NULL;
        DROP VIEW ledger.job_states;
        DROP TABLE ledger.lone_jobs, ledger.new_outcomes, ledger.new_jobs, ledger.chunks;
        CREATE VIEW ledger.backlog AS
            SELECT count(*) AS jobs
            FROM ledger.jobs JOIN ledger.plans USING (plan_id)
            WHERE state <> 'succeeded' AND state <> 'held' AND fanned_out_at IS NOT NULL;
        """
    )
