"""Who may use the dashboard: users, sessions, service tokens, throttled logins, and the audit log."""

from alembic import op

revision = "dagster_0002"
down_revision = "dagster_0001"
oldest_beside = "dagster_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        -- A schema of its own: Dagster's role, which makes tables elsewhere, has no right here.
        CREATE SCHEMA dashboard;

        CREATE TABLE dashboard.users (
            name text PRIMARY KEY CHECK (name <> ''),
            role text NOT NULL CHECK (role IN ('viewer', 'operator')),
            password_hash text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            last_login_at timestamptz,
            is_disabled boolean NOT NULL DEFAULT false
        );

        -- Of a token only its SHA-256: who reads this table cannot take a session over.
        CREATE TABLE dashboard.sessions (
            token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
            name text NOT NULL,
            role text NOT NULL CHECK (role IN ('viewer', 'operator')),
            way text NOT NULL CHECK (way IN ('password', 'openid')),
            -- With a password: a user of ours, whose sessions go when they do.
            user_name text GENERATED ALWAYS AS (CASE WHEN way = 'password' THEN name END) STORED
                REFERENCES dashboard.users ON DELETE CASCADE,
            started_at timestamptz NOT NULL DEFAULT now(),
            seen_at timestamptz NOT NULL DEFAULT now(),
            absolute interval NOT NULL,
            idle interval NOT NULL
        );
        CREATE INDEX sessions_of_a_name ON dashboard.sessions (lower(name));
        CREATE INDEX sessions_of_a_user ON dashboard.sessions (user_name);

        CREATE TABLE dashboard.service_tokens (
            token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
            name text NOT NULL CHECK (name <> ''),
            role text NOT NULL CHECK (role IN ('viewer', 'operator')),
            created_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz,
            last_used_at timestamptz,
            revoked_at timestamptz
        );
        -- Revoked ones stay on record; a name then is free again.
        CREATE UNIQUE INDEX one_token_of_a_name ON dashboard.service_tokens (name) WHERE revoked_at IS NULL;

        -- Of a name or an address only its SHA-256: people type passwords where names belong.
        CREATE TABLE dashboard.login_attempts (
            subject bytea PRIMARY KEY CHECK (octet_length(subject) = 32),
            failures integer NOT NULL CHECK (failures >= 0),
            failed_at timestamptz NOT NULL,
            succeeded_at timestamptz
        );
        CREATE INDEX old_login_attempts ON dashboard.login_attempts (failed_at);

        -- The dashboard's role may only add to it.
        CREATE TABLE dashboard.audit_log (
            event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT now(),
            who text NOT NULL,
            way text CHECK (way IN ('password', 'openid', 'token')),
            what text NOT NULL CHECK (what <> ''),
            detail jsonb NOT NULL CHECK (jsonb_typeof(detail) = 'object'),
            address text NOT NULL,
            outcome text NOT NULL CHECK (outcome <> '')
        );
        CREATE INDEX audit_log_by_time ON dashboard.audit_log (at);
        CREATE INDEX audit_log_of_somebody ON dashboard.audit_log (who, event_id);

        CREATE TABLE dashboard.signing_key (
            key text NOT NULL CHECK (length(key) >= 43),
            made_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE UNIQUE INDEX signing_key_is_one_row ON dashboard.signing_key ((true));
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE dashboard.signing_key, dashboard.audit_log, dashboard.login_attempts,
            dashboard.service_tokens, dashboard.sessions, dashboard.users;
        DROP SCHEMA dashboard;
        """
    )
