"""The input tables as other teams' systems have them: no constraint, whatever arrives is stored."""

from alembic import op

revision = "input_0002"
down_revision = "input_0001"
oldest_beside = "input_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS episodes (
            batch_date date, epid bigint, algorithm_id smallint, series text, season integer,
            episode integer, title text, premier_date date, start_date date
        );
        CREATE INDEX IF NOT EXISTS episodes_batch_date ON episodes (batch_date);
        CREATE TABLE IF NOT EXISTS viewings (
            epid bigint, viewer_id bigint, viewed_at timestamptz, seconds_watched integer,
            completed boolean
        );
        CREATE INDEX IF NOT EXISTS viewings_epid_viewed_at ON viewings (epid, viewed_at);
        CREATE INDEX IF NOT EXISTS viewings_viewed_at ON viewings (viewed_at);
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE viewings; DROP TABLE episodes")
