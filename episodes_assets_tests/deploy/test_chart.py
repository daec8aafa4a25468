"""The Helm chart: each rendered value that matters, without a cluster."""

import json
import re
from typing import Any

import pytest
import yaml

from episodes_assets.dashboard import server
from episodes_assets.postgres.databases import FLEET, ORCHESTRATOR, WEBSERVER, Purpose
from episodes_assets.settings import PROJECT_FOLDER, Settings
from episodes_assets_tests.deploy.chart import CHART, HELM, VALUES, Rendered, changed, helm, render
from episodes_assets_tests.deploy.variables import alert_settings, other_settings, secret_settings

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not HELM.exists(), reason="helm is not installed: `make deploy-check` does that"),
]

# As in ARCHITECTURE.md: no process holds a DSN that its work does not need.
NEEDS = {
    "code-location": ORCHESTRATOR,
    "daemon": (Purpose.DAGSTER,),
    "webserver": WEBSERVER,
    "worker": FLEET,
    "scaler": (Purpose.SCALER,),
}
OBJECTS_OF_OTHERS = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor"}
PROMETHEUS = PROJECT_FOLDER / "deploy" / "prometheus"
OLDEST, NEWEST = "1.27", "1.34"


@pytest.fixture(scope="module")
def chart() -> Rendered:
    """The chart with everything switched on."""
    return render()


def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint", VALUES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(chart: Rendered, version: str) -> None:
    kubernetes = pytest.importorskip(
        "kubernetes_validate", reason="`make deploy-check` installs kubernetes-validate"
    )
    more = render({**_with_alerts(ALERTS), "dbFinish": {"enabled": True}}).objects
    objects = [*chart.objects, *(each for each in more if each not in chart.objects)]
    known = [each for each in objects if each["kind"] not in OBJECTS_OF_OTHERS]
    assert len(known) >= 24
    for each in known:
        kubernetes.validate(each, version, strict=True)


def test_each_process_has_a_secret_with_just_its_dsns(chart: Rendered) -> None:
    for component, purposes in NEEDS.items():
        secret = chart.one("Secret", f"prod-episodes-{component}")
        assert set(secret["stringData"]) == {purpose.setting for purpose in purposes}, component
    for component in NEEDS.keys() - {"scaler"}:
        named = [each["secretRef"]["name"] for each in chart.container(component)["envFrom"]]
        assert [name for name in named if not name.startswith("lake-")] == [f"prod-episodes-{component}"]


def test_db_init_alone_has_the_administrator_and_only_as_long_as_it_takes(chart: Rendered) -> None:
    holders = [each for each in chart.of("Secret") if "EPISODES_ADMIN_DSN" in each["stringData"]]
    assert [each["metadata"]["name"] for each in holders] == ["prod-episodes-db-init"]
    assert set(holders[0]["stringData"]) == {
        "EPISODES_ADMIN_DSN",
        *(purpose.setting for purpose in Purpose if purpose is not Purpose.INPUT_WRITER),
    }
    job = chart.one("Job", "prod-episodes-db-init")
    for each in (holders[0], job):
        hook = each["metadata"]["annotations"]
        assert hook["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert hook["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    weights = [int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in (holders[0], job)]
    assert weights == sorted(weights)  # what the job needs is there before it
    assert chart.container("db-init")["args"] == ["episodes", "db", "init"]
    assert chart.pod("db-init")["restartPolicy"] == "Never"
    # Everything else is made after the hook.
    hooks = {
        each["kind"] for each in chart.objects if "helm.sh/hook" in each["metadata"].get("annotations", {})
    }
    assert hooks == {"Secret", "Job"}
    assert chart.pod("db-init")["serviceAccountName"] == "default"
    (account,) = chart.of("ServiceAccount")
    for component in NEEDS.keys() - {"scaler"}:
        assert chart.pod(component)["serviceAccountName"] == account["metadata"]["name"]


def test_no_secret_is_anywhere_else(chart: Rendered) -> None:
    others = yaml.safe_dump([each for each in chart.objects if each["kind"] != "Secret"])
    assert "postgresql://" not in others


def test_secrets_that_others_keep_take_the_place_of_the_charts() -> None:
    names = {
        "codeLocation": "a",
        "daemon": "b",
        "webserver": "c",
        "worker": "d",
        "scaler": "e",
        "dbInit": "f",
    }
    chart = render({**changed("existingSecrets", names), "dsns": {}})
    assert chart.of("Secret") == []
    named = {
        component: pod["containers"][0]["envFrom"][0]["secretRef"]["name"] for component, pod in chart.pods()
    }
    assert named == {"code-location": "a", "daemon": "b", "webserver": "c", "worker": "d", "db-init": "f"}
    (authentication,) = chart.of("TriggerAuthentication")
    assert authentication["spec"]["secretTargetRef"][0]["name"] == "e"


def test_every_process_is_confined(chart: Rendered) -> None:
    components = []
    for component, pod in chart.pods():
        components.append(component)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"] | {
            "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
        } == pod["securityContext"]  # fmt: skip
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {each["mountPath"] for each in container["volumeMounts"]} >= {"/var/lib/episodes", "/tmp"}
        assert container["image"] == "registry.example/episodes:1.2.3"
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}
    assert sorted(components) == ["code-location", "daemon", "db-init", "webserver", "worker"]


def test_a_digest_goes_before_a_tag() -> None:
    chart = render(changed("image.digest", "sha256:abc"))
    assert chart.container("worker")["image"] == "registry.example/episodes@sha256:abc"


def test_who_writes_to_the_lake_and_who_only_reads(chart: Rendered) -> None:
    secrets = {
        component: {each["secretRef"]["name"] for each in pod["containers"][0]["envFrom"]}
        & {"lake-writer", "lake-reader"}
        for component, pod in chart.pods()
    }
    assert secrets == {
        "code-location": {"lake-writer"}, "db-init": {"lake-writer"},
        "webserver": {"lake-reader"}, "worker": {"lake-reader"}, "daemon": set(),
    }  # fmt: skip
    values = changed("lake", {"url": "/lake", "existingClaim": "lake"})
    mounted = {
        component: [
            each.get("readOnly") for each in pod["containers"][0]["volumeMounts"] if each["name"] == "lake"
        ]
        for component, pod in render(values).pods()
    }
    assert mounted == {
        "code-location": [False], "db-init": [False], "webserver": [True], "worker": [True], "daemon": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("timeouts", "seconds"),
    [
        ({}, 360),
        ({"batchSeconds": 900}, 960),
        ({"jobSeconds": 1_000}, 1_060),
        ({"algorithmSeconds": {"retention": 1_200.5}}, 1_261),
    ],
)
def test_a_worker_has_the_time_for_its_longest_batch(timeouts: dict[str, Any], seconds: int) -> None:
    chart = render(changed("worker.timeouts", timeouts))
    assert chart.pod("worker")["terminationGracePeriodSeconds"] == seconds
    variables = chart.variables("worker")
    assert float(variables["EPISODES_BATCH_TIMEOUT_SECONDS"]) <= seconds - 60
    assert float(variables["EPISODES_JOB_TIMEOUT_SECONDS"]) <= seconds - 60


def test_the_defaults_are_those_of_the_settings(chart: Rendered) -> None:
    fields = Settings.model_fields
    variables = chart.variables("worker")
    for name in ("batch_timeout_seconds", "job_timeout_seconds", "compute_memory_mb"):
        assert float(variables[f"EPISODES_{name.upper()}"]) == fields[name].default


def test_a_workers_memory_has_room_for_its_computation() -> None:
    chart = render(changed("worker.computeMemoryMb", 2_048))
    assert chart.variables("worker")["EPISODES_COMPUTE_MEMORY_MB"] == "2048"
    assert chart.container("worker")["resources"]["limits"]["memory"] == "3072Mi"


def test_every_setting_that_is_named_exists(chart: Rendered) -> None:
    known = {f"EPISODES_{name.upper()}" for name in Settings.model_fields}
    named = {name for component, _ in chart.pods() for name in chart.variables(component)}
    named |= {name for secret in chart.of("Secret") for name in secret["stringData"]}
    assert named - {"POD_IP"} <= known


def test_settings_reach_every_process() -> None:
    chart = render(changed("settings", {"EPISODES_LATE_DAYS": 5}))
    assert {chart.variables(component)["EPISODES_LATE_DAYS"] for component, _ in chart.pods()} == {"5"}


@pytest.mark.parametrize(("log_format", "of_dagster"), [("text", "colored"), ("json", "json")])
def test_dagsters_own_programs_log_in_the_same_format(log_format: str, of_dagster: str) -> None:
    chart = render(changed("settings", {"EPISODES_LOG_FORMAT": log_format}))
    told = {
        component for component, pod in chart.pods()
        if f"--log-format={of_dagster}" in pod["containers"][0]["args"]
    }  # fmt: skip
    assert told == {"code-location", "daemon"}


def test_the_code_location_is_found_where_it_listens(chart: Rendered) -> None:
    workspace = yaml.safe_load(chart.one("ConfigMap", "prod-episodes-workspace")["data"]["workspace.yaml"])
    (server,) = (each["grpc_server"] for each in workspace["load_from"])
    service = chart.one("Service", server["host"])
    assert [each["port"] for each in service["spec"]["ports"]] == [server["port"]] == [4000]
    arguments = chart.container("code-location")["args"]
    assert "--port=4000" in arguments
    assert f"--location-name={server['location_name']}" in arguments
    # Modules of the folder in which it happens to start are not imported.
    assert "--empty-working-directory" in arguments
    labels = chart.one("Deployment", "prod-episodes-code-location")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_there_is_never_a_second_daemon(chart: Rendered) -> None:
    spec = chart.one("Deployment", "prod-episodes-daemon")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_probes(chart: Rendered) -> None:
    web = chart.container("webserver")
    # The daemon's state is in /healthz as well: people look in the UI why it does not work.
    paths = {probe: web[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}
    assert paths == {
        "startup": "/healthz", "readiness": "/login", "liveness": "/dashboard/static/favicon.svg",
    }  # fmt: skip
    code = chart.container("code-location")
    for probe in ("startup", "readiness", "liveness"):
        assert code[f"{probe}Probe"]["grpc"] == {"port": 4000, "service": "DagsterApi"}
    daemon = chart.container("daemon")
    assert daemon["livenessProbe"]["exec"]["command"] == ["dagster-daemon", "liveness-check"]


def test_a_web_server_that_is_replaced_takes_requests_until_none_are_sent_to_it(chart: Rendered) -> None:
    """Endpoints are changed while the pod ends, and an ingress learns of it a moment later."""
    stop = chart.container("webserver")["lifecycle"]["preStop"]["exec"]["command"]
    assert stop == ["sleep", "5"]
    grace = chart.pod("webserver")["terminationGracePeriodSeconds"]
    assert grace > float(stop[1]) + server.LEAVE_SECONDS


def test_the_web_server_answers_to_its_names_and_to_probes(chart: Rendered) -> None:
    web = chart.container("webserver")
    (address,) = (each for each in web["env"] if each["name"] == "POD_IP")
    assert address["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    variables = chart.variables("webserver")
    assert variables["EPISODES_DASHBOARD_HOSTS"] == "episodes.example,$(POD_IP)"
    names = [each["name"] for each in web["env"]]
    assert names.index("POD_IP") < names.index("EPISODES_DASHBOARD_HOSTS")  # or it is not put in
    assert variables["EPISODES_TLS_ENDS_AT_PROXY"] == "true"
    assert variables["EPISODES_TRUSTED_PROXIES"] == "10.0.0.0/8"
    ingress = chart.one("Ingress", "prod-episodes-webserver")["spec"]
    assert ingress["tls"] == [{"secretName": "episodes-tls", "hosts": ["episodes.example"]}]


def test_tls_that_the_web_server_ends_itself() -> None:
    chart = render(changed("webserver.tls", {"existingSecret": "certificate"}))
    web = chart.container("webserver")
    variables = chart.variables("webserver")
    assert "EPISODES_TLS_ENDS_AT_PROXY" not in variables
    (folder,) = (each["mountPath"] for each in web["volumeMounts"] if each["name"] == "tls")
    assert variables["EPISODES_TLS_CERTIFICATE"] == f"{folder}/tls.crt"
    assert variables["EPISODES_TLS_KEY"] == f"{folder}/tls.key"
    assert {web[f"{probe}Probe"]["httpGet"]["scheme"] for probe in ("startup", "readiness", "liveness")} == {
        "HTTPS"
    }
    (monitor,) = chart.of("ServiceMonitor")
    assert monitor["spec"]["endpoints"][0]["scheme"] == "https"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("image.repository", "", "set image.repository"),
        ("lake.url", "", "set lake.url"),
        ("lake.url", "/lake", "set lake.existingClaim"),
        ("lake.existingClaim", "lake", "set lake.url to a folder"),
        ("dsns.worker", "", "set dsns.worker, or existingSecrets.worker"),
        ("dsns.admin", "", "set dsns.admin, or existingSecrets.dbInit"),
        ("dsns.scaler", "", "set dsns.scaler"),
        ("webserver.tls", {}, "passwords would travel in the clear"),
        ("webserver.hosts", [], "set webserver.hosts"),
        ("networkPolicy.databases.queue", [], "set networkPolicy.databases.queue"),
        ("networkPolicy.clients", [], "set networkPolicy.clients"),
        ("networkPolicy.lake", [], "set networkPolicy.lake"),
        ("alerts", {"slackUrl": "https://slack.example/x"}, "set networkPolicy.alerts"),
        ("serviceMonitor.tokenSecret.name", "", "set serviceMonitor.tokenSecret.name"),
    ],
)
def test_what_is_missing_is_said(path: str, value: Any, said: str) -> None:
    done = helm("template", changed(path, value))
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    ("of_others", "of_the_chart", "said"),
    [
        (
            ("existingSecrets.webserver", "vault"),
            ("webserver.openidClientSecret", "s3cret"),
            "OPENID_CLIENT_SECRET",
        ),
        (
            ("alerts.existingSecret", "vault"),
            ("alerts.emailTo", "ada@example.com"),
            "leave the values beside it",
        ),
    ],
)
def test_a_value_that_would_reach_nobody_is_refused(
    of_others: tuple[str, str], of_the_chart: tuple[str, str], said: str
) -> None:
    """Where something else keeps the Secret, the chart makes none to put it into."""
    both = changed(*of_others)
    both["networkPolicy"]["alerts"] = RECEIVERS
    assert helm("template", both).returncode == 0
    place, name = of_the_chart[0].split(".")
    both.setdefault(place, {})[name] = of_the_chart[1]
    done = helm("template", both)
    assert done.returncode != 0
    assert said in done.stderr


def test_an_openid_provider_that_the_web_server_may_not_call_is_refused() -> None:
    values = changed("settings", {"EPISODES_OPENID_ISSUER": "https://accounts.example"})
    values["networkPolicy"]["openid"] = []
    done = helm("template", values)
    assert done.returncode != 0
    assert "set networkPolicy.openid" in done.stderr


def test_a_lake_in_a_volume_and_no_provider_need_no_addresses() -> None:
    values = changed("lake", {"url": "/lake", "existingClaim": "lake"})
    values["networkPolicy"] |= {"lake": [], "openid": []}
    assert {
        port["port"]
        for each in render(values).of("NetworkPolicy")
        for rule in each["spec"]["egress"]
        for port in rule["ports"]
    } == {53, 4000, 5432}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("imgae", {}),
        ("worker.replica", 3),
        ("worker.timeouts.batchSeconds", "300s"),
        ("dsns.postgres", "postgresql://x"),
    ],
)
def test_a_value_that_nobody_reads_or_nobody_can_read_is_refused(path: str, value: Any) -> None:
    assert helm("template", changed(path, value)).returncode != 0


def test_the_fleet_is_scaled_by_what_is_left(chart: Rendered) -> None:
    (scaled,) = chart.of("ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["name"] == "prod-episodes-worker"
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] == "postgresql"
    assert trigger["metadata"]["query"] == "SELECT jobs FROM ledger.backlog"
    assert float(trigger["metadata"]["targetQueryValue"]) == 20_000
    (authentication,) = chart.of("TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    assert authentication["spec"]["secretTargetRef"] == [
        {"parameter": "connection", "name": "prod-episodes-scaler", "key": "EPISODES_SCALER_DSN"}
    ]
    # Two that decide would undo each other's work.
    assert "replicas" not in chart.one("Deployment", "prod-episodes-worker")["spec"]
    without = render(changed("worker.autoscaling.enabled", False))  # noqa: FBT003
    assert without.one("Deployment", "prod-episodes-worker")["spec"]["replicas"] == 2
    assert without.of("ScaledObject") == []
    assert [
        each["metadata"]["name"] for each in without.of("Secret") if "scaler" in each["metadata"]["name"]
    ] == []


def test_prometheus_asks_with_a_token(chart: Rendered) -> None:
    (monitor,) = chart.of("ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    assert endpoint["authorization"] == {
        "type": "Bearer",
        "credentials": {"name": "prometheus-token", "key": "token"},
    }
    service = chart.one("Service", "prod-episodes-webserver")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    # The rules ask for it by this name.
    (scraped,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == scraped["job_name"]


def test_the_rules_reach_prometheus_as_they_are(chart: Rendered) -> None:
    assert chart.of("PrometheusRule") == []
    values = changed("prometheusRule", {"enabled": True, "labels": {"release": "prometheus"}})
    (rule,) = render(values).of("PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    text = (PROMETHEUS / "episodes.rules.yml").read_text(encoding="utf-8")
    assert rule["spec"] == yaml.safe_load(text)
    asked = set(re.findall(r'job="(\w+)"', text))
    (scraped,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert asked == {scraped["job_name"]}


def test_a_node_may_be_emptied_without_the_fleet_ending_at_once(chart: Rendered) -> None:
    budgets = {each["metadata"]["name"]: each["spec"] for each in chart.of("PodDisruptionBudget")}
    assert budgets.keys() == {"prod-episodes-worker"}  # the others are single
    assert budgets["prod-episodes-worker"]["maxUnavailable"] == "25%"
    two = render(changed("webserver.replicas", 2)).of("PodDisruptionBudget")
    assert {each["metadata"]["name"] for each in two} == {"prod-episodes-worker", "prod-episodes-webserver"}


ALERTS = {
    "emailTo": "ops@example.org",
    "emailFrom": "episodes@example.org",
    "smtpUrl": "smtps://user:password@mail.example:465",
    "slackUrl": "https://slack.example/secret",
    "webhookUrl": "https://hook.example/secret",
    "webhookToken": "token",
    "reminderHours": 12,
    "dashboardUrl": "https://episodes.example",
    "daemonSilentSeconds": 90,
    "deadManUrl": "https://watch.example/secret",
}
RECEIVERS = [{"ipBlock": {"cidr": "10.9.3.0/24"}}]


def _with_alerts(alerts: dict[str, Any]) -> dict[str, Any]:
    values = changed("alerts", alerts)
    values["networkPolicy"]["alerts"] = RECEIVERS
    return values


def _secrets(chart: Rendered) -> dict[str, list[str]]:
    return {
        component: [each["secretRef"]["name"] for each in pod["containers"][0]["envFrom"]]
        for component, pod in chart.pods()
    }


def test_alerts_are_sent_by_code_location_and_web_server(chart: Rendered) -> None:
    sending = render(_with_alerts(ALERTS))
    assert set(sending.one("Secret", "prod-episodes-alerts")["stringData"]) == alert_settings()
    holders = {name for name, secrets in _secrets(sending).items() if "prod-episodes-alerts" in secrets}
    assert holders == {"code-location", "webserver"}
    without = yaml.safe_dump([each for each in sending.objects if each["kind"] != "Secret"])
    assert not any(str(each) in without for each in ALERTS.values() if "secret" in str(each))
    policies = {
        each["metadata"]["name"].removeprefix("prod-episodes-"): rule["ports"]
        for each in sending.of("NetworkPolicy")
        for rule in each["spec"]["egress"]
        if rule["to"] == RECEIVERS
    }
    assert policies.keys() == {"code-location", "webserver"}
    assert [each["port"] for each in policies["webserver"]] == [443, 465, 587]
    # Pods are replaced when a value changes, and where there is none nothing is made.
    later = render(_with_alerts({**ALERTS, "slackUrl": "https://slack.example/other"}))
    for component in ("code-location", "webserver"):
        kept, new = (
            each.one("Deployment", f"prod-episodes-{component}")["spec"]["template"]["metadata"][
                "annotations"
            ]
            for each in (sending, later)
        )
        assert kept["checksum/alerts"] != new["checksum/alerts"]
    assert "alerts" not in yaml.safe_dump(chart.objects)


def test_alerts_from_a_secret_that_others_keep() -> None:
    chart = render(_with_alerts({"existingSecret": "vault"}))
    assert not [each for each in chart.of("Secret") if each["metadata"]["name"] == "prod-episodes-alerts"]
    assert {name for name, secrets in _secrets(chart).items() if "vault" in secrets} == {
        "code-location", "webserver",
    }  # fmt: skip


def test_no_secret_is_taken_as_a_setting_of_every_process() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    names = schema["properties"]["settings"]["propertyNames"]
    refused = re.compile(names["not"]["pattern"])
    assert {
        name for name in secret_settings() | other_settings() if refused.search(name)
    } == secret_settings()
    done = helm("template", changed("settings", {"EPISODES_ALERT_SLACK_URL": "https://slack.example/x"}))
    assert done.returncode != 0
    assert "EPISODES_ALERT_SLACK_URL" in done.stderr


def test_schemas_are_finished_when_that_is_asked_for(chart: Rendered) -> None:
    assert "db-finish" not in dict(chart.pods())
    finishing = render(changed("dbFinish.enabled", True))  # noqa: FBT003
    assert finishing.container("db-finish")["args"] == ["episodes", "db", "finish"]
    # After every process has been replaced; and the administrator's DSN is gone afterwards.
    job, secret = (
        finishing.one("Job", "prod-episodes-db-finish"),
        finishing.one("Secret", "prod-episodes-db-finish"),
    )
    for each in (job, secret):
        assert each["metadata"]["annotations"]["helm.sh/hook"] == "post-upgrade"
        assert "hook-succeeded" in each["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert secret["stringData"] == finishing.one("Secret", "prod-episodes-db-init")["stringData"]
    egress = finishing.one("NetworkPolicy", "prod-episodes-db-finish")["spec"]["egress"]
    assert {peer["ipBlock"]["cidr"] for peer in egress[0]["to"]} == set(ADDRESSES.values())
    # No other object is changed by it, so no process is started anew.
    rest = [each for each in finishing.objects if "db-finish" not in each["metadata"]["name"]]
    assert rest == chart.objects


def test_no_pod_fills_the_disk_of_its_node(chart: Rendered) -> None:
    for component, pod in chart.pods():
        given = {each["name"]: each["emptyDir"]["sizeLimit"] for each in pod["volumes"] if "emptyDir" in each}
        assert given == {"home": "256Mi", "tmp": "2Gi"}, component
    other = render(changed("emptyDirs", {"tmp": "8Gi"}))
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}} in other.pod("worker")["volumes"]


ADDRESSES = {
    "dagster": "10.9.0.1/32",
    "input": "10.9.0.2/32",
    "queue": "10.9.0.3/32",
    "results": "10.9.0.4/32",
}


def test_each_process_reaches_only_its_databases(chart: Rendered) -> None:
    def reached(component: str, port: int) -> set[str]:
        policy = chart.one("NetworkPolicy", f"prod-episodes-{component}")
        rules = [rule for rule in policy["spec"]["egress"] if rule["ports"][0]["port"] == port]
        return {peer["ipBlock"]["cidr"] for rule in rules for peer in rule["to"]}

    for component, purposes in {**NEEDS, "db-init": tuple(Purpose)}.items():
        if component == "scaler":  # KEDA's own process
            continue
        assert reached(component, 5432) == {ADDRESSES[purpose.database] for purpose in purposes}, component
        lake = {"10.9.1.0/24"} if component != "daemon" else set()
        openid = {"10.9.2.0/24"} if component == "webserver" else set()
        assert reached(component, 443) == lake | openid, component


def test_who_may_call_whom(chart: Rendered) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in chart.of("NetworkPolicy")}
    everything = policies.pop("prod-episodes")
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    assert {port["port"] for rule in everything["egress"] for port in rule["ports"]} == {53}
    callers = {name: spec["ingress"] for name, spec in policies.items() if "ingress" in spec}
    assert callers.keys() == {"prod-episodes-code-location", "prod-episodes-webserver"}
    (code,) = callers["prod-episodes-code-location"]
    assert {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in code["from"]
    } == {"daemon", "webserver"}  # fmt: skip
    assert code["ports"] == [{"port": 4000, "protocol": "TCP"}]
    (web,) = callers["prod-episodes-webserver"]
    assert web["from"] == VALUES["networkPolicy"]["clients"]
    # And who may call the code location, which refuses all others as well.
    reaching = {
        name.removeprefix("prod-episodes-"): rule["to"]
        for name, spec in policies.items()
        for rule in spec["egress"]
        if {"port": 4000, "protocol": "TCP"} in rule["ports"]
    }
    assert reaching.keys() == {"daemon", "webserver"}
    for peers in reaching.values():
        assert [each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in peers] == [
            "code-location"
        ]
    # Every pod of the release is meant by the first, and by one of its own.
    labels = [
        each["spec"]["template"]["metadata"]["labels"] for each in [*chart.of("Deployment"), *chart.of("Job")]
    ]
    for each in labels:
        assert everything["podSelector"]["matchLabels"].items() <= each.items()
        assert any(spec["podSelector"]["matchLabels"].items() <= each.items() for spec in policies.values())


def test_the_charts_release_is_the_packages() -> None:
    from importlib.metadata import version

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == version("episodes-assets")
