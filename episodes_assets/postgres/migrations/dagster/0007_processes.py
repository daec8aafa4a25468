"""The processes that work with Dagster's database, and which schemas their release was made for."""

from alembic import op

revision = "dagster_0007"
down_revision = "dagster_0006"
oldest_beside = "dagster_0007"  # older releases refuse every newer schema
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE public.processes (
            -- The name of its sessions, by which pg_stat_activity says whether it lives.
            session text PRIMARY KEY,
            host text NOT NULL,
            pid integer NOT NULL,
            program text NOT NULL,
            release text NOT NULL,
            -- The newest version it knows of each database's schema.
            knows jsonb NOT NULL,
            seen_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE public.processes")
