"""What was found damaged and repaired stays on record: why, by whom and what."""

from alembic import op

revision = "results_0007"
down_revision = "results_0006"
oldest_beside = "results_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE published.repairs (
            repair_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            day date NOT NULL,
            what text NOT NULL,
            reason text NOT NULL CHECK (reason <> ''),
            repaired_by text NOT NULL CHECK (repaired_by <> ''),
            repaired_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX repairs_of_a_day ON published.repairs (day, repair_id);
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE published.repairs")
