"""The files of a deployment against each other and the program: labels, names, ports, probes, settings, commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from realtime.api.openapi import OPERATIONS
from realtime.cli.main import cli
from realtime.server.draining import longest_leave
from realtime.settings import Settings, variables

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "web/docs/deploy"
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.cluster.yaml").read_text(encoding="utf-8"))
COMMANDS = {str(one.name or (one.callback and one.callback.__name__)) for one in cli.registered_commands}


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    """Templates by the name of what makes pods of them."""
    return {name: one["spec"]["template"] for kind in ("Deployment", "Job") for name, one in of_kind(kind).items()}


# Kubernetes ------------------------------------------------------------------------------------------------------


def test_every_manifest_is_in_the_namespace_that_is_made_first() -> None:
    first, *others = MANIFESTS
    assert first["kind"] == "Namespace"
    assert {one["metadata"]["namespace"] for one in others} == {first["metadata"]["name"]}
    named = [(one["kind"], one["metadata"]["name"]) for one in MANIFESTS]
    assert len(named) == len(set(named))


def test_selectors_choose_the_pods_they_are_meant_for() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods().items()}
    for name, deployment in of_kind("Deployment").items():
        assert deployment["spec"]["selector"]["matchLabels"] == labels[name]
    assert len({str(label) for label in labels.values()}) == len(labels), "and no others"
    serve = labels["realtime-serve"]
    assert of_kind("Service")["realtime"]["spec"]["selector"] == serve
    assert of_kind("PodDisruptionBudget")["realtime-serve"]["spec"]["selector"]["matchLabels"] == serve
    assert of_kind("HorizontalPodAutoscaler")["realtime-serve"]["spec"]["scaleTargetRef"]["name"] == "realtime-serve"


def test_settings_are_ones_that_the_program_takes() -> None:
    given = of_kind("ConfigMap")["realtime"]["data"] | of_kind("Secret")["realtime"]["stringData"]
    assert set(given) <= set(variables())
    settings = Settings.load(given, ("DATABASE_URL", "DRAGONFLY_URL", "REALTIME_SECRET"))
    serve = pods()["realtime-serve"]["spec"]
    assert serve["terminationGracePeriodSeconds"] > longest_leave(settings)
    for pod in pods().values():
        (container,) = pod["spec"]["containers"]
        assert {"configMapRef": {"name": "realtime"}} in container["envFrom"]
        assert {"secretRef": {"name": "realtime"}} in container["envFrom"]
        assert {one["name"] for one in container.get("env", [])} <= set(variables())
        assert pod["spec"].get("enableServiceLinks") is False or pod["spec"]["restartPolicy"] == "OnFailure"


def test_commands_and_ports_and_probes_are_there() -> None:
    data = of_kind("ConfigMap")["realtime"]["data"]
    for name, pod in pods().items():
        (container,) = pod["spec"]["containers"]
        program, command = container["args"]
        assert program == "realtime" and command in COMMANDS, name
    (serve,) = pods()["realtime-serve"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in serve["ports"]}
    assert ports == {"http": int(data["REALTIME_PORT"])}
    addresses = {operation.path for operation in OPERATIONS}
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz"), ("startupProbe", "/healthz")):
        asked = serve[probe]["httpGet"]
        assert asked["path"] == path and path in addresses and asked["port"] in ports
    assert of_kind("Service")["realtime"]["spec"]["ports"][0]["targetPort"] in ports
    (worker,) = pods()["realtime-worker"]["spec"]["containers"]
    own = {one["name"]: one["value"] for one in worker["env"]}
    told = pods()["realtime-worker"]["metadata"]["annotations"]["prometheus.io/port"]
    assert own["REALTIME_WORKER_METRICS_PORT"] == str(worker["ports"][0]["containerPort"]) == told


def test_nobody_runs_as_root_or_writes_to_the_image() -> None:
    for name in ("realtime-serve", "realtime-worker"):
        (container,) = pods()[name]["spec"]["containers"]
        context = container["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] and context["readOnlyRootFilesystem"]
        assert "cpu" not in container["resources"]["limits"], "whoever is throttled is late for all"


# Compose ---------------------------------------------------------------------------------------------------------

SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_there_are_three_of_each_and_every_name_is_a_service() -> None:
    for kind in ("serve", "postgres"):
        assert {f"{kind}{number}" for number in (1, 2, 3)} <= set(SERVICES)
    assert {f"valkey{number}" for number in range(1, 7)} <= set(SERVICES), "three masters, three replicas"
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", ())) <= set(SERVICES), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or source.startswith("./"), name
        for config in service.get("configs", ()):
            assert config["source"] in COMPOSE["configs"]


def test_the_servers_know_where_every_node_is() -> None:
    given = SERVICES["serve1"]["environment"]
    assert set(given) <= set(variables())
    places = {name: re.findall(r"[@,]([a-z]+\d):(\d+)", text) for name, text in given.items()}
    assert [host for host, _ in places["DATABASE_URL"]] == ["postgres1", "postgres2", "postgres3"]
    assert {host for host, _ in places["DRAGONFLY_URL"]} <= set(SERVICES)
    assert given["DRAGONFLY_URL"].startswith("redis+cluster://")
    text = {name: re.sub(r"\$\{.*?\}", "x" * 32, value) for name, value in given.items()}
    assert Settings.load(text, ("DATABASE_URL", "DRAGONFLY_URL", "REALTIME_SECRET"))
    assert all(SERVICES[f"serve{number}"]["environment"] == given for number in (2, 3))


@pytest.mark.parametrize("name", ["serve1", "worker", "migrate"])
def test_commands_of_compose_are_the_program_s(name: str) -> None:
    program, command, *_ = SERVICES[name]["command"]
    assert program == "realtime" and command in COMMANDS


def test_haproxy_s_sample_leads_to_the_nodes_of_compose_as_it_stands() -> None:
    sample = (DEPLOY.parent / "haproxy.cfg").read_text(encoding="utf-8")
    there = {f"{name}": service["networks"]["default"]["ipv4_address"] for name, service in SERVICES.items()
             if "networks" in service}  # fmt: skip
    led = dict(re.findall(r"server (\w+) ([\d.]+):\d+", sample))
    for number in (1, 2, 3):
        assert led[f"host{number}"] == there[f"serve{number}"]
        assert led[f"postgres{number}"] == there[f"postgres{number}"]
    assert SERVICES["haproxy"]["volumes"] == ["./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"]
    own = there["haproxy"]
    assert f"host postgres haproxy {own}/32 trust" in COMPOSE["configs"]["replication"]["content"]
    assert SERVICES["serve1"]["environment"]["REALTIME_TRUSTED_PROXIES"] == own
