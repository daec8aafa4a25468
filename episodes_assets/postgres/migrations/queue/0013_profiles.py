"""Profiles: those that are asked for, and what was seen."""

from alembic import op

revision = "queue_0013"
down_revision = "queue_0012"
oldest_beside = "queue_0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        -- A row is a profile that is wanted, then taken, then there. Whoever takes it claims the row for a
        -- bounded time, so that one who is killed meanwhile keeps nobody from anything.
        CREATE TABLE ledger.profiles (
            profile_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            -- A step of a run, a micro-batch of any worker, or whatever one worker computes.
            kind text NOT NULL CHECK (kind IN ('step', 'batch', 'worker')),
            subject text,       -- a step's asset, or the worker
            day date,           -- which a batch has to be of, if it is said
            run_id text,        -- that asked for it, if one did
            reason text NOT NULL,
            requested_by text NOT NULL,
            requested_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL,
            rate integer NOT NULL CHECK (rate BETWEEN 1 AND 1000),
            most_seconds double precision NOT NULL CHECK (most_seconds > 0 AND most_seconds <= 600),
            claim uuid,
            claimed_by text,
            claimed_at timestamptz,
            finished_at timestamptz,
            engine text,
            samples bigint,
            problem text,       -- why there is nothing to be seen
            stacks bytea CHECK (octet_length(stacks) < 1000000),
            CONSTRAINT a_claim_is_whole CHECK (num_nonnulls(claim, claimed_by, claimed_at) IN (0, 3)),
            CONSTRAINT a_worker_is_named CHECK (kind = 'batch' OR subject IS NOT NULL)
        );
        CREATE INDEX open_profiles ON ledger.profiles (kind, profile_id) WHERE finished_at IS NULL;
        CREATE INDEX profiles_by_request ON ledger.profiles (requested_at);
        -- Whether the same one has asked within the hour.
        CREATE INDEX profiles_by_requester ON ledger.profiles (requested_by, kind, requested_at);
        CREATE INDEX profiles_of_runs ON ledger.profiles (run_id) WHERE run_id IS NOT NULL;
        -- It is compressed already.
        ALTER TABLE ledger.profiles ALTER stacks SET STORAGE EXTERNAL;
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE ledger.profiles")
