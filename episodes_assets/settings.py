"""Every setting of the system, from `EPISODES_*` in the environment or in a `.env` file.

Without any DSN the embedded PostgreSQL serves all four databases; with DSNs, a process needs only
those of its own work. A setting is described here alone: `make docs` writes docs/settings.md from it.
No database is read here.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    JsonValue,
    PositiveFloat,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from episodes_assets.errors import BadSetting

# What a child process finds in place of a setting that is none of its business, such as a DSN: the default
# holds then. An empty variable would let `.env` supply it after all.
WITHHELD = "withheld"

PACKAGE_FOLDER = Path(__file__).resolve().parent
PROJECT_FOLDER = PACKAGE_FOLDER.parent  # the checkout, or the folder into which a wheel was installed
LogFormat = Literal["text", "json"]
PRODUCTION = "production"
# For so long a failed run counts, unless a later one has done its work: `defs/observed.py`.
FAILED_RUNS_DAYS = 7


def find_default_home() -> tuple[Path, Path]:
    """The home where no setting names one, and the file of settings.

    An installed package keeps nothing beside itself: an upgrade replaces that folder, and whoever runs the
    system may not write there.
    """
    if (PROJECT_FOLDER / "pyproject.toml").is_file():
        return PROJECT_FOLDER / ".episodes", PROJECT_FOLDER / ".env"
    try:
        home = Path.home() / ".episodes"
    except RuntimeError:  # this user has no home directory, as in some containers
        home = Path("/var/lib/episodes")
    return home, home / ".env"


DEFAULT_HOME, ENV_FILE = find_default_home()


def find_instance_file() -> Path:
    """This release's `dagster.yaml`: in the package where a wheel was installed, else the checkout's."""
    packaged = PACKAGE_FOLDER / "dagster.yaml"
    return packaged if packaged.is_file() else PROJECT_FOLDER / "dagster.yaml"


class Section(StrEnum):
    """The headings of docs/settings.md, in their order."""

    PROCESS = "Every process"
    DATABASES = "The databases"
    ADMINISTRATION = "Setting databases up"
    LAKE = "The input and the lake"
    JOBS = "Jobs and days"
    DASHBOARD = "The dashboard"
    ALERTS = "Alerts to people"


def _page(section: Section, used_by: str, default: str = "") -> dict[str, JsonValue]:
    """What docs/settings.md says of a setting beside its description.

    Args:
        section: The heading below which it stands.
        used_by: The processes and commands that read it.
        default: What holds without it, where the field's own default does not say so.
    """
    return {"section": section.value, "used_by": used_by, "default": default}


_EMBEDDED = "embedded server"
_ALERTING = "orchestrator, web server, `episodes alerts`"
_ADMINISTRATION = "`episodes db init`, `db finish`, `db stamp`"


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="EPISODES_",
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    home: Path = Field(
        default=DEFAULT_HOME,
        description="Folder of the embedded databases (as root, a link to them), their passwords, the lake "
        "and the logs.",
        json_schema_extra=_page(
            Section.PROCESS, "all", default="`.episodes` in the checkout, or `~/.episodes`"
        ),
    )
    environment: str = Field(
        default="development",
        pattern=r"^[a-z][a-z0-9_-]{0,30}$",
        description="Name stamped on every database and on the lake; a process of another name may not "
        "write. `production` is stricter: docs/environments.md.",
        json_schema_extra=_page(Section.PROCESS, "all"),
    )
    allowed_hosts: str = Field(
        default="",
        description="Outside production, the hosts that DSNs and the lake's URL may name: `host`, "
        "`host:port`, `s3://bucket`, comma-separated: docs/environments.md.",
        json_schema_extra=_page(Section.PROCESS, "all"),
    )

    log_format: LogFormat = Field(
        default="text",
        description="What processes log in: `text` for people, `json` for machines, an object on each line: "
        "docs/operations.md.",
        json_schema_extra=_page(Section.PROCESS, "worker, web server, `episodes up`"),
    )

    dagster_dsn: SecretStr | None = Field(
        default=None,
        description="Dagster's own storage.",
        json_schema_extra=_page(Section.DATABASES, "orchestrator, web server", default=_EMBEDDED),
    )
    dashboard_dsn: SecretStr | None = Field(
        default=None,
        description="Users, sessions and the audit log, in the same database as Dagster's storage.",
        json_schema_extra=_page(
            Section.DATABASES, "web server, `episodes users`, `tokens`, `audit`", default=_EMBEDDED
        ),
    )
    input_dsn: SecretStr | None = Field(
        default=None,
        description="The input, a role that can only read.",
        json_schema_extra=_page(Section.DATABASES, "orchestrator", default=_EMBEDDED),
    )
    input_writer_dsn: SecretStr | None = Field(
        default=None,
        description="The input, a role that writes. Leave it out where other systems fill the input: "
        "`db init` then leaves its tables to them.",
        json_schema_extra=_page(Section.DATABASES, "`episodes input`", default=_EMBEDDED),
    )
    queue_dsn: SecretStr | None = Field(
        default=None,
        description="The queue, the orchestrator's role.",
        json_schema_extra=_page(
            Section.DATABASES,
            "orchestrator, web server, `episodes jobs`, `explain`, `history`, `lake`",
            default=_EMBEDDED,
        ),
    )
    worker_dsn: SecretStr | None = Field(
        default=None,
        description="The queue, the workers' role.",
        json_schema_extra=_page(Section.DATABASES, "worker", default=_EMBEDDED),
    )
    queue_reader_dsn: SecretStr | None = Field(
        default=None,
        description="The queue, a role that reads plans, jobs and outcomes: docs/lab.md.",
        json_schema_extra=_page(Section.DATABASES, "`episodes lab take`, `lab clone`", default=_EMBEDDED),
    )
    scaler_dsn: SecretStr | None = Field(
        default=None,
        description="The queue, a role that reads how many jobs are left and nothing else, for what scales "
        "the fleet: docs/deploy.md.",
        json_schema_extra=_page(Section.DATABASES, "KEDA or another autoscaler", default=_EMBEDDED),
    )
    results_dsn: SecretStr | None = Field(
        default=None,
        description="The results, the publisher's role.",
        json_schema_extra=_page(
            Section.DATABASES,
            "orchestrator, `episodes state`, `history`, `lake`, `explain` without the next one",
            default=_EMBEDDED,
        ),
    )
    results_reader_dsn: SecretStr | None = Field(
        default=None,
        description="The results, a role that reads the tracked state and what is published.",
        json_schema_extra=_page(
            Section.DATABASES,
            "web server, for its page *Explain*; `episodes explain`, `lab take`, `lab clone`",
            default=_EMBEDDED,
        ),
    )
    consumer_dsn: SecretStr | None = Field(
        default=None,
        description="The results, a role that reads what is published.",
        json_schema_extra=_page(
            Section.DATABASES,
            "web server, for its page *Results*; `episodes results`, consumers",
            default=_EMBEDDED,
        ),
    )

    admin_dsn: SecretStr | None = Field(
        default=None,
        description="A role that may create roles and databases.",
        json_schema_extra=_page(Section.ADMINISTRATION, _ADMINISTRATION),
    )
    dagster_admin_dsn: SecretStr | None = Field(
        default=None,
        description="The same, where `dagster` has a server of its own.",
        json_schema_extra=_page(Section.ADMINISTRATION, _ADMINISTRATION, default="`EPISODES_ADMIN_DSN`"),
    )
    input_admin_dsn: SecretStr | None = Field(
        default=None,
        description="The same for `input`.",
        json_schema_extra=_page(Section.ADMINISTRATION, _ADMINISTRATION, default="`EPISODES_ADMIN_DSN`"),
    )
    queue_admin_dsn: SecretStr | None = Field(
        default=None,
        description="The same for `queue`.",
        json_schema_extra=_page(Section.ADMINISTRATION, _ADMINISTRATION, default="`EPISODES_ADMIN_DSN`"),
    )
    results_admin_dsn: SecretStr | None = Field(
        default=None,
        description="The same for `results`.",
        json_schema_extra=_page(Section.ADMINISTRATION, _ADMINISTRATION, default="`EPISODES_ADMIN_DSN`"),
    )

    lake_url: str = Field(
        default="",
        repr=False,  # such a URL may hold a key
        description="Where drops and viewings are kept for ever: a folder, or a URL such as "
        "`s3://bucket/prefix`, that workers reach as well: docs/lake.md.",
        json_schema_extra=_page(
            Section.LAKE,
            "orchestrator, worker, web server, `episodes lake`, `explain`, `history`, `db`",
            default="`lake` in the home",
        ),
    )
    snapshots_url: str = Field(
        default="",
        repr=False,
        description="Where an older release kept snapshots, a folder or an fsspec URL (`s3://…` needs `s3fs` "
        "installed): `episodes db init` brings them into the lake: docs/lake.md.",
        json_schema_extra=_page(
            Section.LAKE, "orchestrator, `episodes lake`, `db`", default="`snapshots` in the home"
        ),
    )
    late_days: int = Field(
        default=3,
        ge=0,
        le=366,
        description="Days before a day whose viewings are looked at again, because some may arrive late.",
        json_schema_extra=_page(Section.LAKE, "orchestrator"),
    )
    quarantine_limit: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="Share of a drop refused above which nothing is built on it; 1 never stops.",
        json_schema_extra=_page(Section.LAKE, "orchestrator, web server, `episodes explain`"),
    )

    chunk_jobs: int = Field(
        default=2_000,
        ge=1,
        le=20_000,
        description="Jobs in one queue message and one micro-batch; long windows get fewer.",
        json_schema_extra=_page(Section.JOBS, "orchestrator"),
    )
    max_starts: int = Field(
        default=4,
        ge=1,
        le=50,
        description="Starts after which a job without outcome is held: docs/job-states.md.",
        json_schema_extra=_page(Section.JOBS, "worker"),
    )
    retry_seconds: float = Field(
        default=2.0,
        ge=0,
        description="Wait before the next start of a failed job, or of a step whose database went away "
        "(three times); doubles each time.",
        json_schema_extra=_page(Section.JOBS, "orchestrator, worker"),
    )
    batch_timeout_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Longest computation of jobs that run together; then they run one by one.",
        json_schema_extra=_page(Section.JOBS, "worker"),
    )
    job_timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Longest computation of a job that runs alone.",
        json_schema_extra=_page(Section.JOBS, "worker"),
    )
    algorithm_timeout_seconds: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description='The same for single algorithms, by their names, as JSON: `{"retention": 120}`.',
        json_schema_extra=_page(Section.JOBS, "worker"),
    )
    compute_memory_mb: int = Field(
        default=4096,
        ge=512,
        description="What a worker's computation may allocate; beyond it a job fails alone.",
        json_schema_extra=_page(Section.JOBS, "worker"),
    )
    heartbeat_seconds: float = Field(
        default=30.0,
        ge=2,
        description="Silence after which a worker's messages go to another.",
        json_schema_extra=_page(Section.JOBS, "orchestrator, worker, `episodes jobs`"),
    )
    stall_minutes: float = Field(
        default=15.0,
        gt=0,
        description="`job_outcomes` fails when no job of its days finishes for so long, unless the fleet is "
        "busy with days before them.",
        json_schema_extra=_page(Section.JOBS, "orchestrator, `episodes jobs`"),
    )
    queue_log_days: int = Field(
        default=7,
        ge=1,
        description="How long PgQueuer's log of finished messages is kept.",
        json_schema_extra=_page(Section.JOBS, "orchestrator"),
    )
    slow_step_factor: float = Field(
        default=5.0,
        ge=0,
        description="A step that takes so many times what is usual, and a minute at least, is profiled by "
        "itself; 0: none: docs/profiling.md.",
        json_schema_extra=_page(Section.JOBS, "orchestrator"),
    )
    profile_days: int = Field(
        default=30,
        ge=1,
        description="How long profiles are kept.",
        json_schema_extra=_page(Section.JOBS, "orchestrator"),
    )
    run_log_days: int = Field(
        default=90,
        # A day more than it is read for: what a step said is older than the end of its run.
        ge=FAILED_RUNS_DAYS + 1,
        description="How long Dagster's event log keeps what runs did, step by step. Alerts read there why "
        "runs of the last seven days failed. Materialisations, results of checks and the runs "
        "themselves stay: docs/operations.md.",
        json_schema_extra=_page(Section.JOBS, "orchestrator"),
    )
    published_by_hour: int = Field(
        default=8,
        ge=0,
        le=23,
        description="Hour (UTC) by which a day is to be published after its end.",
        json_schema_extra=_page(Section.JOBS, "orchestrator"),
    )

    password_login: bool = Field(
        default=True,
        description="Whether passwords are accepted; `false` ends their sessions as well.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    session_hours: float = Field(
        default=12.0,
        gt=0,
        le=24 * 30,
        description="After which a login ends, used or not.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    session_idle_minutes: float = Field(
        default=60.0,
        gt=0,
        le=60 * 24 * 30,
        description="After which a login ends that nobody used.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    dashboard_hosts: str = Field(
        default="",
        description="Names by which browsers may call the dashboard besides localhost, comma-separated.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file of the certificate; with it and its key the dashboard may listen beyond this "
        "machine.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    tls_key: Path | None = Field(
        default=None,
        description="PEM file of the certificate's key.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    tls_ends_at_proxy: bool = Field(
        default=False,
        description="A proxy ends TLS; its `X-Forwarded-*` headers are trusted.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    trusted_proxies: str = Field(
        default="127.0.0.1",
        description="Addresses or networks of such proxies, comma-separated.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    openid_issuer: str = Field(
        default="",
        description="OpenID Connect provider people sign in through, such as `https://accounts.google.com`: "
        "docs/dashboard.md.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    openid_name: str = Field(
        default="",
        description="What the login page's button calls the provider.",
        json_schema_extra=_page(Section.DASHBOARD, "web server", default="host of the issuer"),
    )
    openid_client_id: str = Field(
        default="",
        description="The dashboard's client id at the provider.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    openid_client_secret: SecretStr | None = Field(
        default=None,
        description="The dashboard's client secret at the provider.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    openid_operators: str = Field(
        default="",
        description="E-mail addresses that may change things, or `*@domain`, comma-separated.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    openid_viewers: str = Field(
        default="",
        description="E-mail addresses that may look, or `*@domain`, comma-separated.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    openid_domains: str = Field(
        default="",
        description="E-mail domains of which everybody has the default role who is not listed, "
        "comma-separated; needs that role.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )
    openid_default_role: Literal["viewer", "operator"] | None = Field(
        default=None,
        description="That role, `viewer` or `operator`; needs the domains.",
        json_schema_extra=_page(Section.DASHBOARD, "web server"),
    )

    alert_email_to: str = Field(
        default="",
        description="E-mail addresses that get alerts, comma-separated; needs the two below.",
        json_schema_extra=_page(Section.ALERTS, _ALERTING),
    )
    alert_email_from: str = Field(
        default="",
        description="The address that they come from.",
        json_schema_extra=_page(Section.ALERTS, _ALERTING),
    )
    alert_smtp_url: SecretStr | None = Field(
        default=None,
        description="The mail server, `smtps://user:password@host:465` or `smtp://host:587`. With `smtp` TLS "
        "is begun (STARTTLS) where the server offers it, and required where there is a password.",
        json_schema_extra=_page(Section.ALERTS, _ALERTING),
    )
    alert_slack_url: SecretStr | None = Field(
        default=None,
        description="The URL of a Slack incoming webhook.",
        json_schema_extra=_page(Section.ALERTS, _ALERTING),
    )
    alert_webhook_url: SecretStr | None = Field(
        default=None,
        description="An `http` or `https` URL to which each message is posted as JSON: docs/operations.md.",
        json_schema_extra=_page(Section.ALERTS, _ALERTING),
    )
    alert_webhook_token: SecretStr | None = Field(
        default=None,
        description="Sent along as `Authorization: Bearer`.",
        json_schema_extra=_page(Section.ALERTS, _ALERTING),
    )
    alert_reminder_hours: float = Field(
        default=24.0,
        ge=0.1,
        le=24 * 30,
        description="How long after the last message about an alert that is still open the next one comes.",
        json_schema_extra=_page(Section.ALERTS, "orchestrator, web server"),
    )
    dashboard_url: str = Field(
        default="",
        description="Where people reach the dashboard, for the links in messages.",
        json_schema_extra=_page(Section.ALERTS, _ALERTING),
    )
    daemon_silent_seconds: float = Field(
        default=75.0,
        ge=35,
        le=3_600,
        description="Without a heartbeat of Dagster's daemon, which sends one every 30 seconds, for so long, "
        "the web server raises the alert that it is silent.",
        json_schema_extra=_page(Section.ALERTS, "web server"),
    )
    dead_man_url: SecretStr | None = Field(
        default=None,
        description="An `http` or `https` URL that is asked (GET) once a minute while all is watched; "
        "whoever is behind it raises an alert when that stops.",
        json_schema_extra=_page(Section.ALERTS, "web server"),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _know_nothing_of_what_is_withheld(cls, value: object, info: ValidationInfo) -> object:
        if value != WITHHELD or info.field_name is None:
            return value
        return cls.model_fields[info.field_name].get_default(call_default_factory=True)

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


def section_of(field: FieldInfo) -> Section | None:
    """The heading of docs/settings.md below which a setting stands."""
    extra = field.json_schema_extra
    return Section(str(extra["section"])) if isinstance(extra, dict) else None


def with_settings(environment: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """An environment in which some settings have these values and no others.

    Names of settings are read without regard to case, so other spellings of theirs are left out.

    Args:
        environment: Any.
        settings: The variables of the settings, in capitals.
    """
    kept = {name: value for name, value in environment.items() if name.upper() not in settings}
    return {**kept, **settings}


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
            f"EPISODES_{field.upper()} cannot be read", "spell it as JSON; see docs/settings.md"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        name = f"EPISODES_{str(first['loc'][0]).upper()}" if first["loc"] else "settings"
        raise BadSetting(
            f"{name} = {first.get('input')!r} is invalid", f"{first['msg']}; see docs/settings.md"
        ) from error
