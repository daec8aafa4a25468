"""Waivers: recorded decisions to publish a day without some of its held jobs."""

from alembic import op

revision = "queue_0004"
down_revision = "queue_0003"
oldest_beside = "queue_0004"
branch_labels = None
depends_on = None

# Its columns stay, so that the view is replaced in place and keeps its grants.
_JOB_STATES = """
    CREATE OR REPLACE VIEW ledger.job_states AS
        SELECT jobs.plan_id, jobs.position, chunk, epid, algorithm_id, window_start,
            CASE
                WHEN outcomes.position IS NOT NULL THEN 'succeeded'
                {waived}
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
"""


def upgrade() -> None:
    op.execute(
        """
        -- Never deleted while its plan's row stays: retrying the jobs only takes them out of it.
        CREATE TABLE ledger.waivers (
            waiver_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            plan_id bigint NOT NULL REFERENCES ledger.plans ON DELETE CASCADE,
            jobs integer NOT NULL CHECK (jobs > 0),
            reason text NOT NULL,
            decided_by text NOT NULL,
            decided_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT a_decision_says_why_and_whose CHECK (reason <> '' AND decided_by <> '')
        );
        CREATE INDEX waivers_of_a_plan ON ledger.waivers (plan_id);

        ALTER TABLE ledger.lone_jobs
            ADD COLUMN waiver_id bigint REFERENCES ledger.waivers ON DELETE SET NULL,
            ADD CONSTRAINT only_held_jobs_are_waived CHECK (waiver_id IS NULL OR is_held);
        CREATE INDEX waived_jobs ON ledger.lone_jobs (plan_id, waiver_id) WHERE waiver_id IS NOT NULL;

        -- What each plan is published without: how many jobs, why, and who decided it.
        CREATE VIEW ledger.left_out AS
            SELECT plan_id, sum(waived.jobs)::integer AS jobs,
                string_agg(reason || ' (' || decided_by || ')', '; ' ORDER BY waiver_id) AS decision
            FROM (
                SELECT plan_id, waiver_id, count(*) AS jobs
                FROM ledger.lone_jobs WHERE waiver_id IS NOT NULL GROUP BY plan_id, waiver_id
            ) AS waived
            JOIN ledger.waivers USING (plan_id, waiver_id)
            GROUP BY plan_id;
        """
    )
    op.execute(_JOB_STATES.format(waived="WHEN waiver_id IS NOT NULL THEN 'waived'"))


def downgrade() -> None:
    op.execute(_JOB_STATES.format(waived=""))
    op.execute(
        """
        DROP VIEW ledger.left_out;
        ALTER TABLE ledger.lone_jobs DROP COLUMN waiver_id;
        DROP TABLE ledger.waivers;
        """
    )
