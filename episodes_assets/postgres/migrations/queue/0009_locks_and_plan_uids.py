"""Locks as rows that only the orchestrator may take, and plans that are told apart after a restore.

A database that is restored to an earlier moment gives the numbers that it has forgotten once more.
"""

from alembic import op

revision = "queue_0009"
down_revision = "queue_0008"
oldest_beside = "queue_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE ledger.locks (name text PRIMARY KEY);

        ALTER TABLE ledger.plans
            ADD COLUMN plan_uid uuid,
            -- Of what was tracked up to the day before; NULL when nothing was, or for plans from before this.
            ADD COLUMN tracked_checksum text;
        -- From what the row says, so that an older copy that is upgraded later has the same.
        UPDATE ledger.plans
        SET plan_uid = md5(
            concat_ws(' ', plan_id, day - date '2000-01-01', checksum, extract(epoch FROM planned_at))
        )::uuid;
        ALTER TABLE ledger.plans
            ALTER COLUMN plan_uid SET NOT NULL,
            ALTER COLUMN plan_uid SET DEFAULT gen_random_uuid(),
            ADD CONSTRAINT plans_have_uids_of_their_own UNIQUE (plan_uid);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        ALTER TABLE ledger.plans DROP COLUMN plan_uid, DROP COLUMN tracked_checksum;
        DROP TABLE ledger.locks;
        """
    )
