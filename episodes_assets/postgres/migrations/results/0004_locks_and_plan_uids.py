"""Locks as rows that consumers cannot take, and which plan a day was published from, whatever its number."""

from alembic import op

revision = "results_0004"
down_revision = "results_0003"
oldest_beside = "results_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        -- Not in `published`, where consumers look.
        CREATE TABLE state.locks (name text PRIMARY KEY);

        -- Days published before this have none: it was not recorded.
        ALTER TABLE published.days ADD COLUMN plan_uid uuid;
        ALTER TABLE published.history ADD COLUMN plan_uid uuid;
        -- The newest plan that was ever published is asked for before each planning.
        CREATE INDEX history_by_plan ON published.history (plan_id);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP INDEX published.history_by_plan;
        ALTER TABLE published.history DROP COLUMN plan_uid;
        ALTER TABLE published.days DROP COLUMN plan_uid;
        DROP TABLE state.locks;
        """
    )
