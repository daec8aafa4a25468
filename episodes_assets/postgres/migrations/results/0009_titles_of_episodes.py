"""Consumers find the titles of published episodes beside their results."""

from alembic import op

revision = "results_0009"
down_revision = "results_0008"
oldest_beside = "results_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Filled as days are published; of days from before, when one is published with the same episodes.
    op.execute(
        """
        -- An algorithm of that name, which no algorithm can have any more, had its view there.
        DROP VIEW IF EXISTS published.episodes;
        CREATE TABLE published.episodes (
            epid bigint PRIMARY KEY,
            series text,
            season integer,
            episode integer,
            title text,
            day date NOT NULL
        -- A day changes most of its rows, and no column of an index: there is room for that on each page.
        ) WITH (fillfactor = 80);
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE published.episodes")
