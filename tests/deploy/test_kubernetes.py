"""`deploy/kubernetes`: what the overlays would apply."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from kustomizing import DEPLOY, Resource, by_name, pods, rendered

from examples.shop.app import client
from steporal.durations import parse_duration
from steporal.wire.names import SYSTEM_TASK_QUEUE
from steporal_workers.cli import cli

Mistakes = Callable[[Resource], list[str]]

TEMPORAL_TRIGGER = {
    "endpoint", "namespace", "taskQueue", "queueTypes", "targetQueueSize", "activationTargetQueueSize",
    "workerDeploymentName", "workerDeploymentBuildId", "minConnectTimeout", "unsafeSsl", "tlsServerName",
}  # fmt: skip
"""What KEDA's trigger ``temporal`` knows; some of it also with FromEnv."""


def test_every_resource_fits_the_schema_of_its_kind(overlay: list[Resource], mistakes: Mistakes) -> None:
    assert [mistake for resource in overlay for mistake in mistakes(resource)] == []


def test_what_is_made_for_each_version_fits_the_schema_of_its_kind(
    folders: dict[str, Path], mistakes: Mistakes
) -> None:
    templates = [it for it in rendered(folders["versioned"]) if it["kind"] == "WorkerResourceTemplate"]
    kinds = {template["spec"]["template"]["kind"] for template in templates}
    assert kinds == {"PodDisruptionBudget", "HorizontalPodAutoscaler"}
    for template in templates:
        made = template["spec"]["template"] | {"metadata": {"name": "steporal-worker-1"}}
        if "scaleTargetRef" in made["spec"]:
            assert made["spec"]["scaleTargetRef"] == {}
            made["spec"]["scaleTargetRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker-1"}
        assert mistakes(made) == []


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "template", "spec", "terminationGracePeriod"), 90),
        ("Deployment", ("spec", "replicas"), "two"),
        ("ScaledObject", ("spec", "minReplicas"), 2),
        ("WorkerDeployment", ("spec", "template", "spec", "containers", 0, "probe"), {}),
        ("WorkerDeployment", ("spec", "rollout", "strategy"), "Fast"),
        ("Ingress", ("spec", "rules", 0, "http", "paths", 0, "pathType"), None),
    ],
)
def test_a_mistake_is_found(
    folders: dict[str, Path], mistakes: Mistakes, kind: str, path: tuple[Any, ...], value: object
) -> None:
    resources = rendered(folders["production"]) + rendered(folders["versioned"])
    resource = copy.deepcopy(next(it for it in resources if it["kind"] == kind))
    place = resource
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    if value is None:
        del place[path[-1]]
    assert mistakes(resource)


@pytest.mark.parametrize("name", ["dev", "production", "versioned"])
def test_kubectl_renders_the_same(folders: dict[str, Path], name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl")
    made = subprocess.run([kubectl, "kustomize", str(folders[name])], capture_output=True, text=True, check=True)
    assert by_name(yaml.safe_load_all(made.stdout)) == by_name(rendered(folders[name]))


# --- pods ----------------------------------------------------------------------------------------------------------


def test_every_pod_is_restricted(overlay: list[Resource]) -> None:
    for pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_a_pod_has_longer_to_end_than_its_drain_takes(overlay: list[Resource]) -> None:
    drains = {}
    for pod in pods(overlay):
        [container] = pod["containers"]
        if container["name"] == "worker":
            flags = container["args"]
            drains["worker"] = parse_duration(flags[flags.index("--graceful-timeout") + 1]).total_seconds()
        elif container["name"] == "gateway":
            [delay] = [it["value"] for it in container["env"] if it["name"] == "STEPORAL_DRAIN_DELAY"]
            drains["gateway"] = parse_duration(delay).total_seconds() + 30
        else:
            continue
        assert pod["terminationGracePeriodSeconds"] >= drains[container["name"]] + 15
    assert drains.keys() == {"worker", "gateway"}


def test_probes_ask_a_port_that_the_container_has(overlay: list[Resource]) -> None:
    containers = [container for pod in pods(overlay) for container in pod["containers"] if "ports" in container]
    assert {container["name"] for container in containers} == {"worker", "gateway"}
    for container in containers:
        port, _ = container["ports"]
        for probe, path in (("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")):
            assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}
        if container["name"] == "worker":
            assert {"name": "STEPORAL_HEALTH_PORT", "value": str(port["containerPort"])} in container["env"]
        else:
            assert container["args"][-2:] == ["--port", str(port["containerPort"])]


@pytest.mark.parametrize(
    ("address", "is_reached"),
    [
        *((address, True) for address in ("93.184.216.34", "2606:2800:220:1::1", "172.32.0.1", "11.0.0.1")),
        *((address, False) for address in ("10.1.2.3", "172.31.255.255", "192.168.0.1", "127.0.0.1", "fd00::1")),
        *((address, False) for address in ("169.254.169.254", "168.63.129.16", "192.0.0.192", "100.100.100.200")),
        *((address, False) for address in ("fd00:ec2::254", "fe80::1")),
    ],
)
def test_steps_reach_the_internet_and_nothing_inside(overlay: list[Resource], address: str, is_reached: bool) -> None:
    [rule] = by_name(overlay)["NetworkPolicy", "steporal-worker"]["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [443]
    blocks = [peer["ipBlock"] for peer in rule["to"]]
    reached = any(
        ip_address(address) in ip_network(block["cidr"])
        and not any(ip_address(address) in ip_network(but) for but in block["except"])
        for block in blocks
    )
    assert reached == is_reached


def test_metrics_are_served_where_prometheus_is_told_and_let_in(overlay: list[Resource]) -> None:
    [config] = [it["data"] for it in overlay if it["kind"] == "ConfigMap"]
    assert config["STEPORAL_METRICS_HOST"] == "0.0.0.0"
    templates = [found for it in overlay if (found := it.get("spec", {}).get("template"))]
    scraped = [it for it in templates if any("ports" in container for container in it["spec"].get("containers", ()))]
    assert len(scraped) == 2
    for template in scraped:
        [container] = template["spec"]["containers"]
        assert {"name": "metrics", "containerPort": int(config["STEPORAL_METRICS_PORT"])} in container["ports"]
        assert template["metadata"]["annotations"] == {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": config["STEPORAL_METRICS_PORT"],
            "prometheus.io/path": "/metrics",
        }
    policy = by_name(overlay)["NetworkPolicy", "steporal-metrics"]["spec"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["metrics"]


def test_every_container_runs_a_command_that_steporal_has(overlay: list[Resource]) -> None:
    for pod in pods(overlay):
        for container in pod["containers"]:
            program, name, *arguments = container["args"]
            assert program == "steporal"
            context = cli.commands[name].make_context(name, list(arguments))
            assert context.params["target"] == "app:client"


def test_the_pods_of_versions_are_those_of_the_deployment(folders: dict[str, Path]) -> None:
    [plain] = [it for it in rendered(folders["production"]) if _is_worker(it, "Deployment")]
    [versioned] = [it for it in rendered(folders["versioned"]) if _is_worker(it, "WorkerDeployment")]
    expected = copy.deepcopy(plain["spec"]["template"])
    [container] = expected["spec"]["containers"]
    container["args"] += [
        *("--deployment", "$(TEMPORAL_DEPLOYMENT_NAME)"),
        *("--build-id", "$(TEMPORAL_WORKER_BUILD_ID)"),
    ]
    container["env"] = [it for it in container["env"] if it["name"] != "TEMPORAL_API_KEY"]  # the controller adds it
    assert versioned["spec"]["template"] == expected


def _is_worker(resource: Resource, kind: str) -> bool:
    return (resource["kind"], resource["metadata"]["name"]) == (kind, "steporal-worker")


# --- how they hang together ----------------------------------------------------------------------------------------


def test_everything_that_is_selected_is_there(overlay: list[Resource]) -> None:
    labels = [it["spec"]["template"]["metadata"]["labels"] for it in overlay if list(pods([it]))]
    selectors = list(_selectors(overlay))
    assert len(selectors) > 5
    for selector in selectors:
        assert any(selector.items() <= of_pod.items() for of_pod in labels), selector


def _selectors(resources: list[Resource]) -> Iterator[dict[str, str]]:
    for resource in resources:
        match resource["kind"]:
            case "Service":
                yield resource["spec"]["selector"]
            case "NetworkPolicy":
                yield resource["spec"]["podSelector"]["matchLabels"]
            case "Deployment" | "PodDisruptionBudget":
                yield resource["spec"]["selector"]["matchLabels"]
    for pod in pods(resources):
        for constraint in pod.get("topologySpreadConstraints", ()):
            yield constraint["labelSelector"]["matchLabels"]


def test_every_name_that_is_referred_to_is_there(overlay: list[Resource]) -> None:
    names = by_name(overlay)
    for resource in overlay:
        target = resource["spec"].get("scaleTargetRef") if "spec" in resource else None
        if target:
            assert (target.get("kind", "Deployment"), target["name"]) in names
    for pod in pods(overlay):
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        for container in pod["containers"]:
            for source in container["envFrom"]:
                assert ("ConfigMap", source["configMapRef"]["name"]) in names


def test_the_job_before_the_rollout_is_applied_with_all_that_it_needs(overlay: list[Resource]) -> None:
    """By the label that docs/deploy.md selects."""
    label = "app.kubernetes.io/component"
    first = by_name(it for it in overlay if it["metadata"]["labels"][label] in ("shared", "sync"))
    assert {"Namespace", "ConfigMap", "ServiceAccount", "NetworkPolicy", "Job"} <= {kind for kind, _ in first}
    assert not {"Deployment", "WorkerDeployment"} & {kind for kind, _ in first}
    [pod] = pods(first.values())
    assert ("ServiceAccount", pod["serviceAccountName"]) in first
    assert ("ConfigMap", pod["containers"][0]["envFrom"][0]["configMapRef"]["name"]) in first


def test_secrets_are_referred_to_and_never_there(overlay: list[Resource]) -> None:
    assert "Secret" not in {resource["kind"] for resource in overlay}
    for resource in overlay:
        for name, value in (resource.get("data") or {}).items():
            assert not name.endswith(("_KEY", "_KEYS")), value


def test_an_autoscaler_alone_says_how_many_there_are(folders: dict[str, Path]) -> None:
    resources = rendered(folders["production"])
    scaled = {it["spec"]["scaleTargetRef"]["name"] for it in resources if "scaleTargetRef" in it.get("spec", {})}
    assert scaled == {it["metadata"]["name"] for it in resources if it["kind"] == "Deployment"}
    assert all("replicas" not in it["spec"] for it in resources if it["kind"] == "Deployment")


def test_workers_are_scaled_by_the_task_queues_that_they_serve(folders: dict[str, Path]) -> None:
    [scaled] = [it for it in rendered(folders["production"]) if it["kind"] == "ScaledObject"]
    triggers = scaled["spec"]["triggers"]
    assert {trigger["metadata"]["taskQueue"] for trigger in triggers} == {client.task_queue, SYSTEM_TASK_QUEUE}
    for trigger in triggers:
        assert trigger["type"] == "temporal"
        assert {key.removesuffix("FromEnv") for key in trigger["metadata"]} <= TEMPORAL_TRIGGER


def test_the_controller_connects_as_the_workers_do(folders: dict[str, Path]) -> None:
    resources = rendered(folders["versioned"])
    of_kind = {resource["kind"]: resource for resource in resources}
    config = of_kind["ConfigMap"]["data"]
    assert of_kind["Connection"]["spec"]["hostPort"] == config["TEMPORAL_ADDRESS"]
    assert of_kind["WorkerDeployment"]["spec"]["workerOptions"] == {
        "connectionRef": {"name": of_kind["Connection"]["metadata"]["name"]},
        "temporalNamespace": config["TEMPORAL_NAMESPACE"],
    }


def test_yaml_is_well_formed(tool: Callable[[str], str]) -> None:
    command = [tool("yamllint"), "--strict", "-c", str(DEPLOY / ".yamllint.yaml"), str(DEPLOY)]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
