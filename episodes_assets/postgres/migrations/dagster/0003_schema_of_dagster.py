"""Dagster's tables go to a schema of their own, so that its role can put nothing where others look."""

from alembic import op

revision = "dagster_0003"
down_revision = "dagster_0002"
oldest_beside = "dagster_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # All that its role made goes along, operators and functions too, whoever owns it.
    op.execute(
        """
        ALTER SCHEMA public RENAME TO dagster;
        REVOKE ALL ON SCHEMA dagster FROM PUBLIC;
        CREATE SCHEMA public;
        GRANT USAGE ON SCHEMA public TO PUBLIC;
        ALTER TABLE dagster.environment_stamp SET SCHEMA public;
        ALTER TABLE dagster.episodes_schema_version SET SCHEMA public;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        ALTER TABLE public.environment_stamp SET SCHEMA dagster;
        ALTER TABLE public.episodes_schema_version SET SCHEMA dagster;
        DROP SCHEMA public;
        ALTER SCHEMA dagster RENAME TO public;
        GRANT USAGE ON SCHEMA public TO PUBLIC;
        """
    )
