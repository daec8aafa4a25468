"""The Helm chart rendered with values, as its objects."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from episodes_assets.settings import PROJECT_FOLDER

CHART = PROJECT_FOLDER / "deploy" / "helm" / "episodes"
HELM = Path(sys.prefix) / "deploy" / "helm"
# What somebody gives who uses all of it.
VALUES: Mapping[str, Any] = {
    "image": {"repository": "registry.example/episodes", "tag": "1.2.3"},
    "lake": {"url": "s3://episodes/lake", "writerSecret": "lake-writer", "readerSecret": "lake-reader"},
    "dsns": {
        "dagster": "postgresql://episodes_dagster:a@db.example/dagster",
        "dashboard": "postgresql://episodes_dashboard:b@db.example/dagster",
        "input": "postgresql://episodes_input_reader:c@db.example/input",
        "queue": "postgresql://episodes_orchestrator:d@db.example/queue",
        "worker": "postgresql://episodes_worker:e@db.example/queue",
        "scaler": "postgresql://episodes_scaler:f@db.example/queue",
        "queueReader": "postgresql://episodes_queue_reader:g@db.example/queue",
        "results": "postgresql://episodes_publisher:h@db.example/results",
        "resultsReader": "postgresql://episodes_results_reader:i@db.example/results",
        "consumer": "postgresql://episodes_consumer:j@db.example/results",
        "admin": "postgresql://boss:k@db.example/postgres",
    },
    "webserver": {
        "hosts": ["episodes.example"],
        "tls": {"trustedProxies": ["10.0.0.0/8"]},
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "episodes-tls"},
    },
    "worker": {"autoscaling": {"enabled": True}},
    "networkPolicy": {
        "databases": {
            "dagster": [{"ipBlock": {"cidr": "10.9.0.1/32"}}],
            "input": [{"ipBlock": {"cidr": "10.9.0.2/32"}}],
            "queue": [{"ipBlock": {"cidr": "10.9.0.3/32"}}],
            "results": [{"ipBlock": {"cidr": "10.9.0.4/32"}}],
        },
        "lake": [{"ipBlock": {"cidr": "10.9.1.0/24"}}],
        "openid": [{"ipBlock": {"cidr": "10.9.2.0/24"}}],
        "clients": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
    },
    "serviceMonitor": {"enabled": True, "tokenSecret": {"name": "prometheus-token"}},
}


@dataclass(frozen=True)
class Rendered:
    """What `helm template` prints."""

    text: str

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """Every object, hooks included."""
        return [each for each in yaml.safe_load_all(self.text) if each]

    def one(self, kind: str, name: str) -> dict[str, Any]:
        """The only object of a kind and a name."""
        (found,) = (each for each in self.of(kind) if each["metadata"]["name"] == name)
        return found

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def pods(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The pod of each process by its component, the hook's included."""
        for each in [*self.of("Deployment"), *self.of("Job")]:
            template = each["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"]

    def pod(self, component: str) -> dict[str, Any]:
        """One of them."""
        return dict(self.pods())[component]

    def container(self, component: str) -> dict[str, Any]:
        """The only container of one of them."""
        (container,) = self.pod(component)["containers"]
        return dict(container)

    def variables(self, component: str) -> dict[str, str]:
        """The variables that are no secrets."""
        return {each["name"]: each.get("value", "") for each in self.container(component)["env"]}


def helm(command: str, values: Mapping[str, Any], *options: str) -> "subprocess.CompletedProcess[str]":
    """Run helm on the chart."""
    argv = {"lint": ["lint", "--strict"], "template": ["template", "prod", "--namespace", "episodes"]}[
        command
    ]
    return subprocess.run(
        [str(HELM), *argv, str(CHART), "--values", "-", *options],
        input=yaml.safe_dump(dict(values)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def render(values: Mapping[str, Any] = VALUES) -> Rendered:
    """Render the chart, which must succeed."""
    done = helm("template", values)
    assert done.returncode == 0, done.stderr
    return Rendered(done.stdout)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The values with one of them changed; `path` has its names, with dots between."""
    values: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(VALUES)))
    *above, last = path.split(".")
    inner = values
    for name in above:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return values
