"""Where a published day came from, and a history of its publications."""

from alembic import op

revision = "results_0003"
down_revision = "results_0002"
oldest_beside = "results_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        -- Days published before this have no snapshot_id and no versions: it was not recorded.
        ALTER TABLE published.days
            ADD COLUMN snapshot_id text,
            ADD COLUMN left_out integer NOT NULL DEFAULT 0,
            ADD COLUMN decision text NOT NULL DEFAULT '',
            ADD COLUMN algorithm_versions jsonb NOT NULL DEFAULT '{}';

        -- One row for each time a day's publication changed; the publisher may only add to it.
        CREATE TABLE published.history (
            publication_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            day date NOT NULL,
            jobs integer NOT NULL,
            rows integer NOT NULL,
            left_out integer NOT NULL,
            decision text NOT NULL,
            checksum text NOT NULL,
            snapshot_id text,
            plan_id bigint NOT NULL,
            plan_checksum text NOT NULL,
            code_version text NOT NULL,
            algorithm_versions jsonb NOT NULL,
            published_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX history_of_a_day ON published.history (day);

        INSERT INTO published.history (day, jobs, rows, left_out, decision, checksum, snapshot_id, plan_id,
            plan_checksum, code_version, algorithm_versions, published_at)
        SELECT day, jobs, rows, left_out, decision, checksum, snapshot_id, plan_id,
            plan_checksum, code_version, algorithm_versions, published_at
        FROM published.days ORDER BY published_at, day;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE published.history;
        ALTER TABLE published.days
            DROP COLUMN snapshot_id,
            DROP COLUMN left_out,
            DROP COLUMN decision,
            DROP COLUMN algorithm_versions;
        """
    )
