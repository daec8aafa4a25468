"""The stamp that says which environment this database belongs to."""

from alembic import op

revision = "input_0001"
down_revision = None
oldest_beside = "input_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE environment_stamp (
            environment text NOT NULL,
            stamped_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE UNIQUE INDEX environment_stamp_is_one_row ON environment_stamp ((true));
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE environment_stamp")
