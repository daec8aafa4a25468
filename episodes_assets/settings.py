"""Every setting of the system, from `EPISODES_*` in the environment or in a `.env` file.

Without any DSN the embedded PostgreSQL serves all four databases; with DSNs, a process needs only
those of its own work. README.md ("Settings") is the table of all of them.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from episodes_assets.errors import BadSetting

# What a child process finds in place of a DSN that is none of its business. An empty variable would let
# `.env` supply it after all.
WITHHELD = "withheld"

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
PRODUCTION = "production"


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="EPISODES_",
        env_file=PROJECT_FOLDER / ".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    home: Path = Field(
        default=PROJECT_FOLDER / ".episodes",
        description="Folder of the embedded databases, the lake and Dagster's logs.",
    )
    environment: str = Field(
        default="development",
        pattern=r"^[a-z][a-z0-9_-]{0,30}$",
        description="Name stamped on every database; a process of another name may not write.",
    )

    allowed_hosts: str = Field(
        default="",
        description="Hosts that DSNs and the lake's URL may name outside production, comma-separated.",
    )

    dagster_dsn: SecretStr | None = Field(default=None, description="Dagster's own storage.")
    dashboard_dsn: SecretStr | None = Field(
        default=None,
        description="Users, sessions and the audit log, in the same database as Dagster's storage.",
    )
    input_dsn: SecretStr | None = Field(default=None, description="Input, read-only role.")
    input_writer_dsn: SecretStr | None = Field(
        default=None, description="Input, role of the systems that fill it; for `episodes input`."
    )
    queue_dsn: SecretStr | None = Field(default=None, description="Queue, orchestrator's role.")
    worker_dsn: SecretStr | None = Field(default=None, description="Queue, worker's role.")
    results_dsn: SecretStr | None = Field(default=None, description="Results, publisher's role.")
    consumer_dsn: SecretStr | None = Field(default=None, description="Results, consumers' role.")

    admin_dsn: SecretStr | None = Field(
        default=None, description="A role that may create roles and databases; for `db init` and `db stamp`."
    )
    dagster_admin_dsn: SecretStr | None = Field(default=None, description="The same, per server.")
    input_admin_dsn: SecretStr | None = Field(default=None, description="The same, per server.")
    queue_admin_dsn: SecretStr | None = Field(default=None, description="The same, per server.")
    results_admin_dsn: SecretStr | None = Field(default=None, description="The same, per server.")

    snapshots_url: str = Field(
        default="",
        description="Where an older release kept snapshots, a folder or an fsspec URL: `episodes db init` "
        "brings them into the lake. Default: in the home.",
    )
    lake_url: str = Field(
        default="",
        description="Where drops and viewings are kept for ever: a folder or a URL such as "
        "s3://bucket/prefix, which workers reach as well. Default: in the home.",
    )

    late_days: int = Field(
        default=3,
        ge=0,
        le=366,
        description="Days before a day whose viewings are looked at again, because some may arrive late.",
    )

    chunk_jobs: int = Field(
        default=2_000, ge=1, le=20_000, description="Jobs in one queue message and one micro-batch."
    )
    max_starts: int = Field(
        default=4, ge=1, le=50, description="Starts after which a job without outcome is held."
    )
    retry_seconds: float = Field(
        default=2.0,
        ge=0,
        description="Wait before a failed job's next start, or a step's after an outage; doubles.",
    )
    batch_timeout_seconds: float = Field(
        default=300.0, gt=0, description="Longest computation of jobs that run together."
    )
    job_timeout_seconds: float = Field(
        default=60.0, gt=0, description="Longest computation of a job that runs alone."
    )
    algorithm_timeout_seconds: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="The same for single algorithms, as a JSON object by name."
    )
    compute_memory_mb: int = Field(
        default=4096, ge=512, description="Memory that a worker's computation may allocate."
    )
    heartbeat_seconds: float = Field(
        default=30.0, ge=2, description="Silence after which a worker's messages go to another."
    )
    stall_minutes: float = Field(
        default=15.0, gt=0, description="`job_outcomes` fails when no job finishes for so long."
    )
    queue_log_days: int = Field(
        default=7, ge=1, description="How long PgQueuer's log of finished messages is kept."
    )

    quarantine_limit: float = Field(
        default=0.25, ge=0, le=1, description="Share of a drop refused above which nothing is built on it."
    )
    published_by_hour: int = Field(
        default=8, ge=0, le=23, description="Hour (UTC) by which a day is to be published after its end."
    )

    dashboard_hosts: str = Field(
        default="",
        description="Names by which browsers may call the dashboard besides localhost, comma-separated.",
    )
    tls_certificate: Path | None = Field(default=None, description="PEM file the dashboard shows browsers.")
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's key.")
    tls_ends_at_proxy: bool = Field(
        default=False, description="A proxy before the dashboard ends TLS; its X-Forwarded-* are believed."
    )
    trusted_proxies: str = Field(
        default="127.0.0.1", description="Addresses of such proxies, comma-separated."
    )
    session_hours: float = Field(
        default=12.0, gt=0, le=24 * 30, description="After which a login ends, used or not."
    )
    session_idle_minutes: float = Field(
        default=60.0, gt=0, le=60 * 24 * 30, description="After which a login ends that nobody used."
    )
    password_login: bool = Field(default=True, description="Whether passwords are accepted.")
    openid_issuer: str = Field(
        default="",
        description="OpenID Connect provider people sign in through, such as https://accounts.google.com.",
    )
    openid_name: str = Field(
        default="", description="What the button on the login page calls it. Default: its host."
    )
    openid_client_id: str = Field(default="", description="What the provider calls the dashboard.")
    openid_client_secret: SecretStr | None = Field(default=None, description="What it proves that with.")
    openid_domains: str = Field(
        default="", description="E-mail domains of which everybody has the default role, comma-separated."
    )
    openid_default_role: Literal["viewer", "operator"] | None = Field(
        default=None, description="Role of everybody of these domains who is not listed."
    )
    openid_viewers: str = Field(
        default="", description="E-mail addresses that may look, or *@domain, comma-separated."
    )
    openid_operators: str = Field(
        default="", description="E-mail addresses that may change things, or *@domain, comma-separated."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _know_nothing_of_what_is_withheld(cls, value: object) -> object:
        return None if value == WITHHELD else value

    @field_validator("algorithm_timeout_seconds")
    @classmethod
    def _know_algorithms_by_name(cls, value: dict[str, float]) -> dict[str, float]:
        if value:
            from episodes_assets.algorithms.registry import get_registry  # loads pandas, and few need it

            registry = get_registry()
            known = {each.name for each in registry.by_id.values()}
            # The name in a module that cannot be read is not known; that fails its own jobs only.
            if (unknown := value.keys() - known) and not registry.problems:
                raise ValueError(f"no algorithm is called {min(unknown)}, but {', '.join(sorted(known))} are")
        return value

    @property
    def is_production(self) -> bool:
        """Whether this process belongs to the environment called production."""
        return self.environment == PRODUCTION

    @property
    def snapshots(self) -> str:
        """The folder or fsspec URL below which an older release kept snapshots."""
        return self.snapshots_url or str(self.home / "snapshots")

    @property
    def lake(self) -> str:
        """The folder or URL below which the lake's tables are kept."""
        return self.lake_url or str(self.home / "lake")

    @property
    def dagster_home(self) -> Path:
        """Folder of Dagster's instance: its dagster.yaml, its compute logs."""
        return self.home / "dagster"


def load_settings(**overrides: Any) -> Settings:  # noqa: ANN401
    """Read the settings.

    Raises:
        BadSetting: If a value cannot be understood.
    """
    try:
        return Settings(**overrides)
    except SettingsError as error:  # not JSON, where JSON is wanted
        field = str(error).split('"')[1]
        raise BadSetting(
            f"EPISODES_{field.upper()} cannot be read", "spell it as JSON; see README, Settings"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        name = f"EPISODES_{str(first['loc'][0]).upper()}" if first["loc"] else "settings"
        raise BadSetting(
            f"{name} = {first.get('input')!r} is no good", f"{first['msg']}; see README, Settings"
        ) from error
