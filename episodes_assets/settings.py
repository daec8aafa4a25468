"""Every setting of the system, from `EPISODES_*` in the environment or in a `.env` file.

Without any DSN the embedded PostgreSQL serves all four databases; with DSNs, a process needs only
those of its own work. A setting is described here alone, and declared by `setting_fields`: `make docs` writes
docs/settings.md from it. No database is read here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import PositiveFloat, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from episodes_assets.errors import BadSetting
from episodes_assets.setting_fields import Section, SettingFields

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

_process = SettingFields(Section.PROCESS, "all")
_database = SettingFields(Section.DATABASES, shown="embedded server")
_administration = SettingFields(
    Section.ADMINISTRATION, "`episodes db init`, `db finish`, `db stamp`", shown="`EPISODES_ADMIN_DSN`"
)
_lake = SettingFields(Section.LAKE, "orchestrator")
_jobs = SettingFields(Section.JOBS, "orchestrator")
_dashboard = SettingFields(Section.DASHBOARD, "web server")
_alerts = SettingFields(Section.ALERTS, "orchestrator, web server, `episodes alerts`")


class Settings(BaseSettings):
    """The settings of one process; paths are absolute, also where they were given relative to its folder."""

    model_config = SettingsConfigDict(
        env_prefix="EPISODES_",
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    home: Path = _process(
        DEFAULT_HOME,
        "Folder of the embedded databases (as root, a link to them), their passwords, the lake and the logs.",
        shown="`.episodes` in the checkout, or `~/.episodes`",
    )
    environment: str = _process(
        "development",
        "Name stamped on every database and on the lake; a process of another name may not write. "
        "`production` is stricter: docs/environments.md.",
        pattern=r"^[a-z][a-z0-9_-]{0,30}$",
    )
    allowed_hosts: str = _process(
        "",
        "Outside production, the hosts that DSNs, the lake's URL and those of alerts may name: `host`, "
        "`host:port`, `s3://bucket`, comma-separated: docs/environments.md.",
    )
    log_format: LogFormat = _process(
        "text",
        "What processes log in: `text` for people, `json` for machines, an object on each line: "
        "docs/operations.md.",
        "worker, web server, `episodes up`",
    )

    dagster_dsn: SecretStr | None = _database(
        None, "Dagster's own storage.", "orchestrator, web server, `episodes drain`, `db`"
    )
    dashboard_dsn: SecretStr | None = _database(
        None,
        "Users, sessions and the audit log, in the same database as Dagster's storage.",
        "web server, `episodes users`, `tokens`, `audit`",
    )
    input_dsn: SecretStr | None = _database(None, "The input, a role that can only read.", "orchestrator")
    input_writer_dsn: SecretStr | None = _database(
        None,
        "The input, a role that writes. Leave it out where other systems fill the input: `db init` "
        "then leaves its tables to them.",
        "`episodes input`",
    )
    queue_dsn: SecretStr | None = _database(
        None,
        "The queue, the orchestrator's role.",
        "orchestrator, web server, `episodes jobs`, `explain`, `history`, `lake`, `alerts`, `profile`, `db`",
    )
    worker_dsn: SecretStr | None = _database(None, "The queue, the workers' role.", "worker")
    queue_reader_dsn: SecretStr | None = _database(
        None,
        "The queue, a role that reads plans, jobs and outcomes: docs/lab.md.",
        "`episodes lab take`, `lab clone`",
    )
    scaler_dsn: SecretStr | None = _database(
        None,
        "The queue, a role that reads how many jobs are left and nothing else, for what scales the "
        "fleet: docs/deploy.md.",
        "KEDA or another autoscaler",
    )
    results_dsn: SecretStr | None = _database(
        None,
        "The results, the publisher's role.",
        "orchestrator, `episodes state`, `history`, `lake`, `db`, `explain` without the next one",
    )
    results_reader_dsn: SecretStr | None = _database(
        None,
        "The results, a role that reads the tracked state and what is published.",
        "web server, for its page *Explain* and `/metrics`; `episodes explain`, `lab take`, `lab clone`",
    )
    consumer_dsn: SecretStr | None = _database(
        None,
        "The results, a role that reads what is published.",
        "web server, for its page *Results*; `episodes results`, consumers",
    )

    admin_dsn: SecretStr | None = _administration(
        None, "A role that may create roles and databases.", shown=""
    )
    dagster_admin_dsn: SecretStr | None = _administration(
        None, "The same, where `dagster` has a server of its own."
    )
    input_admin_dsn: SecretStr | None = _administration(None, "The same for `input`.")
    queue_admin_dsn: SecretStr | None = _administration(None, "The same for `queue`.")
    results_admin_dsn: SecretStr | None = _administration(None, "The same for `results`.")

    lake_url: str = _lake(
        "",
        "Where drops and viewings are kept for ever: a folder, or a URL such as `s3://bucket/prefix`, "
        "that workers reach as well: docs/lake.md.",
        "orchestrator, worker, web server, `episodes lake`, `explain`, `history`, `db`",
        shown="`lake` in the home",
        repr=False,
    )
    snapshots_url: str = _lake(
        "",
        "Where an older release kept snapshots, a folder or an fsspec URL (`s3://…` needs `s3fs` "
        "installed): `episodes db init` brings them into the lake: docs/lake.md.",
        "orchestrator, `episodes lake`, `db`",
        shown="`snapshots` in the home",
        repr=False,
    )
    late_days: int = _lake(
        3, "Days before a day whose viewings are looked at again, because some may arrive late.", ge=0, le=366
    )
    quarantine_limit: float = _lake(
        0.25,
        "Share of a drop refused above which nothing is built on it; 1 never stops.",
        "orchestrator, web server, `episodes explain`",
        ge=0,
        le=1,
    )

    chunk_jobs: int = _jobs(
        2_000, "Jobs in one queue message and one micro-batch; long windows get fewer.", ge=1, le=20_000
    )
    max_starts: int = _jobs(
        4, "Starts after which a job without outcome is held: docs/job-states.md.", "worker", ge=1, le=50
    )
    retry_seconds: float = _jobs(
        2.0,
        "Wait before the next start of a failed job, or of a step whose database went away (three "
        "times); doubles each time.",
        "orchestrator, worker",
        ge=0,
    )
    batch_timeout_seconds: float = _jobs(
        300.0, "Longest computation of jobs that run together; then they run one by one.", "worker", gt=0
    )
    job_timeout_seconds: float = _jobs(60.0, "Longest computation of a job that runs alone.", "worker", gt=0)
    algorithm_timeout_seconds: dict[str, PositiveFloat] = _jobs(
        {},
        'The same for single algorithms, by their names, as JSON: `{"retention": 120}`.',
        "worker",
        shown="none",
    )
    compute_memory_mb: int = _jobs(
        4096, "What a worker's computation may allocate; beyond it a job fails alone.", "worker", ge=512
    )
    heartbeat_seconds: float = _jobs(
        30.0,
        "Silence after which a worker's messages go to another.",
        "orchestrator, worker, web server, `episodes jobs`",
        ge=2,
    )
    stall_minutes: float = _jobs(
        15.0,
        "`job_outcomes` fails when no job of its days finishes for so long, unless the fleet is busy "
        "with other days and has not begun with these.",
        "orchestrator, web server, `episodes jobs`",
        gt=0,
    )
    queue_log_days: int = _jobs(7, "How long PgQueuer's log of finished messages is kept.", ge=1)
    slow_step_factor: float = _jobs(
        5.0,
        "A step that takes so many times what is usual, and a minute at least, is profiled by itself; "
        "0: none: docs/profiling.md.",
        ge=0,
    )
    profile_days: int = _jobs(30, "How long profiles are kept.", ge=1)
    run_log_days: int = _jobs(
        90,
        "How long Dagster's event log keeps what runs did, step by step. Alerts read there why runs "
        "of the last seven days failed. Materialisations, results of checks and the runs themselves "
        "stay: docs/operations.md.",
        # A day more than it is read for: what a step said is older than the end of its run.
        ge=FAILED_RUNS_DAYS + 1,
    )
    published_by_hour: int = _jobs(
        8, "Hour (UTC) by which a day is to be published after its end.", ge=0, le=23
    )

    password_login: bool = _dashboard(
        default=True, description="Whether passwords are accepted; `false` ends their sessions as well."
    )
    session_hours: float = _dashboard(12.0, "After which a login ends, used or not.", gt=0, le=24 * 30)
    session_idle_minutes: float = _dashboard(
        60.0, "After which a login ends that nobody used.", gt=0, le=60 * 24 * 30
    )
    dashboard_hosts: str = _dashboard(
        "", "Names by which browsers may call the dashboard besides localhost, comma-separated."
    )
    tls_certificate: Path | None = _dashboard(
        None, "PEM file of the certificate; with it and its key the dashboard may listen beyond this machine."
    )
    tls_key: Path | None = _dashboard(None, "PEM file of the certificate's key.")
    tls_ends_at_proxy: bool = _dashboard(
        default=False, description="A proxy ends TLS; its `X-Forwarded-*` headers are trusted."
    )
    trusted_proxies: str = _dashboard("127.0.0.1", "Addresses or networks of such proxies, comma-separated.")
    openid_issuer: str = _dashboard(
        "",
        "OpenID Connect provider people sign in through, such as `https://accounts.google.com`: "
        "docs/dashboard.md.",
    )
    openid_name: str = _dashboard(
        "", "What the login page's button calls the provider.", shown="host of the issuer"
    )
    openid_client_id: str = _dashboard("", "The dashboard's client id at the provider.")
    openid_client_secret: SecretStr | None = _dashboard(
        None, "The dashboard's client secret at the provider."
    )
    openid_operators: str = _dashboard(
        "", "E-mail addresses that may change things, or `*@domain`, comma-separated."
    )
    openid_viewers: str = _dashboard("", "E-mail addresses that may look, or `*@domain`, comma-separated.")
    openid_domains: str = _dashboard(
        "",
        "E-mail domains of which everybody has the default role who is not listed, comma-separated; "
        "needs that role.",
    )
    openid_default_role: Literal["viewer", "operator"] | None = _dashboard(
        None, "That role, `viewer` or `operator`; needs the domains."
    )

    alert_email_to: str = _alerts(
        "", "E-mail addresses that get alerts, comma-separated; needs the two below."
    )
    alert_email_from: str = _alerts("", "The address that they come from.")
    alert_smtp_url: SecretStr | None = _alerts(
        None,
        "The mail server, `smtps://user:password@host:465` or `smtp://host:587`. With `smtp` TLS is "
        "begun (STARTTLS) where the server offers it, and required where there is a password.",
    )
    alert_slack_url: SecretStr | None = _alerts(None, "The URL of a Slack incoming webhook.")
    alert_webhook_url: SecretStr | None = _alerts(
        None, "An `http` or `https` URL to which each message is posted as JSON: docs/operations.md."
    )
    alert_webhook_token: SecretStr | None = _alerts(None, "Sent along as `Authorization: Bearer`.")
    alert_reminder_hours: float = _alerts(
        24.0,
        "How long after the last message about an alert that is still open the next one comes.",
        "orchestrator, web server",
        ge=0.1,
        le=24 * 30,
    )
    dashboard_url: str = _alerts("", "Where people reach the dashboard, for the links in messages.")
    daemon_silent_seconds: float = _alerts(
        75.0,
        "Without a heartbeat of Dagster's daemon, which sends one every 30 seconds, for so long, the "
        "web server raises the alert that it is silent.",
        "web server",
        ge=35,
        le=3_600,
    )
    dead_man_url: SecretStr | None = _alerts(
        None,
        "The ping URL (`http` or `https`, GET) of an external monitor that alerts when pings stop (dead "
        "man's switch); it is pinged once a minute while all is watched.",
        "web server",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _know_nothing_of_what_is_withheld(cls, value: object, info: ValidationInfo) -> object:
        if value != WITHHELD or info.field_name is None:
            return value
        return cls.model_fields[info.field_name].get_default(call_default_factory=True)

    @field_validator("home", "tls_certificate", "tls_key")
    @classmethod
    def _begin_at_the_root(cls, path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    @field_validator("lake_url", "snapshots_url")
    @classmethod
    def _begin_at_the_root_unless_elsewhere(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
        except ValueError:  # whoever opens it says what is wrong
            return url
        is_relative = not parts.netloc and parts.path and not parts.path.startswith("/")
        if parts.scheme not in ("", "file") or not is_relative:
            return url
        return str(Path(parts.path if parts.scheme else url).absolute())

    @field_validator("algorithm_timeout_seconds")
    @classmethod
    def _know_algorithms_by_name(cls, value: dict[str, float]) -> dict[str, float]:
        if value:
            # It reads every algorithm's module, and few processes need that.
            from episodes_assets.algorithms.registry import get_registry

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
