"""The restore points that were made after days were published stay on record with the publications."""

from alembic import op

revision = "results_0010"
down_revision = "results_0009"
oldest_beside = "results_0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE published.restore_points (
            publication_id bigint NOT NULL,
            name text NOT NULL,
            day date NOT NULL,
            databases text[] NOT NULL,
            made_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (publication_id, name)
        );
        CREATE INDEX restore_points_of_a_day ON published.restore_points (day);
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE published.restore_points")
