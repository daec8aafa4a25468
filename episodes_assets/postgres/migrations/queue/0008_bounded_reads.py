"""Indexes that leave the planner no choice, and no check of each row against another table."""

from alembic import op

revision = "queue_0008"
down_revision = "queue_0007"
oldest_beside = "queue_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        -- A chunk's jobs are read by plan_id and position. This index would fit as well as the primary key
        -- where the statistics expect one row of a plan, and then gives all of the day's. Nothing that names
        -- the plan_id by itself fits it now.
        ALTER TABLE ledger.jobs DROP CONSTRAINT one_job_for_each_episode_and_algorithm;
        CREATE UNIQUE INDEX one_job_for_each_episode_and_algorithm
            ON ledger.jobs ((plan_id + 0), epid, algorithm_id);

        -- What belongs to a job is written under the claim of its chunk, which is locked meanwhile, and
        -- deleted with its plan. A foreign key would look up every row by a statement of its own, planned
        -- anew each time where no plan may be kept (postgres/session.py).
        DO $$
        DECLARE found record;
        BEGIN
            FOR found IN
                SELECT conrelid::regclass AS of_table, conname FROM pg_constraint
                WHERE contype = 'f' AND conrelid IN ('ledger.jobs'::regclass, 'ledger.outcomes'::regclass,
                    'ledger.lone_jobs'::regclass, 'ledger.batches'::regclass)
            LOOP
                EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.of_table, found.conname);
            END LOOP;
        END $$;

        CREATE INDEX plans_of_a_day ON ledger.plans (day);
        CREATE INDEX chunks_by_move ON ledger.chunks (moved_at);

        -- Whoever scales the fleet asks in a session of their own, so nothing here is left to be joined.
        CREATE OR REPLACE VIEW ledger.backlog AS
            SELECT coalesce(sum(open.jobs), 0)::bigint AS jobs
            FROM (
                SELECT plan_id, sum(jobs - succeeded - held) AS jobs
                FROM ledger.chunks WHERE succeeded < jobs GROUP BY plan_id
            ) AS open
            CROSS JOIN LATERAL (
                SELECT fanned_out_at, superseded_at FROM ledger.plans
                WHERE plans.plan_id = open.plan_id OFFSET 0
            ) AS plan
            WHERE fanned_out_at IS NOT NULL AND superseded_at IS NULL;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        CREATE OR REPLACE VIEW ledger.backlog AS
            SELECT coalesce(sum(chunks.jobs - succeeded - held), 0)::bigint AS jobs
            FROM ledger.chunks JOIN ledger.plans USING (plan_id)
            WHERE succeeded < chunks.jobs AND fanned_out_at IS NOT NULL AND superseded_at IS NULL;
        DROP INDEX ledger.chunks_by_move, ledger.plans_of_a_day;

        -- What nothing refers to any more would be refused by the keys.
        DELETE FROM ledger.jobs
            WHERE NOT EXISTS (SELECT FROM ledger.plans WHERE plans.plan_id = jobs.plan_id);
        DELETE FROM ledger.outcomes WHERE NOT EXISTS (SELECT FROM ledger.jobs
            WHERE jobs.plan_id = outcomes.plan_id AND jobs.position = outcomes.position);
        DELETE FROM ledger.lone_jobs WHERE NOT EXISTS (SELECT FROM ledger.jobs
            WHERE jobs.plan_id = lone_jobs.plan_id AND jobs.position = lone_jobs.position);
        DELETE FROM ledger.batches WHERE NOT EXISTS (SELECT FROM ledger.jobs
            WHERE jobs.plan_id = batches.plan_id AND jobs.position = batches.first_position);
        UPDATE ledger.lone_jobs SET waiver_id = NULL
            WHERE NOT EXISTS (SELECT FROM ledger.waivers WHERE waivers.waiver_id = lone_jobs.waiver_id);
        ALTER TABLE ledger.jobs ADD FOREIGN KEY (plan_id) REFERENCES ledger.plans ON DELETE CASCADE;
        ALTER TABLE ledger.outcomes
            ADD FOREIGN KEY (plan_id, position) REFERENCES ledger.jobs ON DELETE CASCADE;
        ALTER TABLE ledger.lone_jobs
            ADD FOREIGN KEY (plan_id, position) REFERENCES ledger.jobs ON DELETE CASCADE,
            ADD FOREIGN KEY (waiver_id) REFERENCES ledger.waivers ON DELETE SET NULL;
        ALTER TABLE ledger.batches
            ADD FOREIGN KEY (plan_id, first_position) REFERENCES ledger.jobs ON DELETE CASCADE;
        DROP INDEX ledger.one_job_for_each_episode_and_algorithm;
        ALTER TABLE ledger.jobs
            ADD CONSTRAINT one_job_for_each_episode_and_algorithm UNIQUE (plan_id, epid, algorithm_id);
        """
    )
