"""What clusters refuse though the schema allows it: KubeRay's operator, and the `restricted` Pod Security Standard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MAX_CLUSTER = 53  # characters of a RayCluster's name
SUFFIX = 6  # of the cluster that a RayJob makes: a dash and five random characters
TIME = 11  # of the RayJob that a RayCronJob makes: a dash and a time of ten digits
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def operator_faults(document: dict[str, Any]) -> list[str]:
    """What KubeRay 1.7's operator would refuse of a ray.io document: its events say so, `kubectl apply` does not."""
    kind, name, spec = document["kind"], document["metadata"]["name"], document["spec"]
    room = MAX_CLUSTER - {"RayCluster": 0, "RayJob": SUFFIX, "RayCronJob": SUFFIX + TIME}[kind]
    found = [] if DNS_1035.fullmatch(name) else [f"{name!r} is no DNS label that starts with a letter"]
    found += [f"{name!r} has more than {room} characters"] if len(name) > room else []
    if kind == "RayCronJob":
        found += ["the zone belongs into timeZone"] if "TZ" in spec["schedule"] else []
    job = spec["jobTemplate"] if kind == "RayCronJob" else spec
    cluster = spec if kind == "RayCluster" else job.get("rayClusterSpec")
    found += [] if kind == "RayCluster" else _job_faults(job)
    return found + (list(_cluster_faults(cluster)) if cluster else [])


def _job_faults(job: dict[str, Any]) -> list[str]:
    selected = bool(job.get("clusterSelector"))
    wrong = {
        "one of rayClusterSpec and clusterSelector": selected == ("rayClusterSpec" in job),
        "a time to live without shutdownAfterJobFinishes": bool(job.get("ttlSecondsAfterFinished"))
        and not job.get("shutdownAfterJobFinishes"),
        "shutdownAfterJobFinishes beside deletionStrategy": bool(job.get("shutdownAfterJobFinishes"))
        and "deletionStrategy" in job,
        "retries on a cluster that is shared": selected and bool(job.get("backoffLimit")),
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]


def _cluster_faults(cluster: dict[str, Any]) -> Iterator[str]:
    version = tuple(int(part) for part in cluster.get("rayVersion", "0").split("."))
    if cluster.get("authOptions", {}).get("mode") == "token" and version < (2, 52):
        yield "tokens want rayVersion 2.52.0 or later"
    second = cluster.get("enableInTreeAutoscaling") and cluster["autoscalerOptions"].get("version") == "v2"
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
        where, start = group.get("groupName", "head"), group.get("rayStartParams", {})
        if "labels" in start:
            yield f"{where}: labels have a field of their own"
        if group.get("resources") and start.keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
            yield f"{where}: resources in two places"
        if group.get("minReplicas", 0) > group.get("maxReplicas", 0):
            yield f"{where}: minReplicas above maxReplicas"
        if not second and ("idleTimeoutSeconds" in group or group.get("priority")):
            yield f"{where}: wants the second autoscaler"
        if second and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield f"{where}: the second autoscaler wants restartPolicy Never"


def pods(document: Any, place: str = "$") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod's spec in a document, with its place."""
    if isinstance(document, list):
        for index, item in enumerate(document):
            yield from pods(item, f"{place}[{index}]")
    elif isinstance(document, dict):
        if "containers" in document:
            yield place, document
        for key, value in document.items():
            yield from pods(value, f"{place}.{key}")


def privileges(pod: dict[str, Any]) -> list[str]:
    """What the `restricted` standard forbids of a pod, and what this project asks for beyond it."""
    context = pod.get("securityContext", {})
    wrong = {
        "runAsNonRoot": context.get("runAsNonRoot") is not True,
        "runAsUser as a number that is not root's": not context.get("runAsUser"),
        "seccompProfile": context.get("seccompProfile") != {"type": "RuntimeDefault"},
        "the host's namespaces": any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
        "volumes of the host": any(not volume.keys() & VOLUMES for volume in pod.get("volumes", [])),
        "automountServiceAccountToken unsaid": "automountServiceAccountToken" not in pod,
    }
    found = [text for text, is_wrong in wrong.items() if is_wrong]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        found += [f"{container['name']}: {text}" for text in _container_faults(container)]
    return found


def _container_faults(container: dict[str, Any]) -> list[str]:
    context, resources = container.get("securityContext", {}), container.get("resources", {})
    wrong = {
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is not False,
        "capabilities": context.get("capabilities") != {"drop": ["ALL"]},
        "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is not True,
        "requests of cpu and memory": not {"cpu", "memory"} <= resources.get("requests", {}).keys(),
        "a limit of memory": "memory" not in resources.get("limits", {}),
        "an image with a version": not re.search(r":\d[\w.-]*$", container["image"]),
        "a port of the host": any("hostPort" in port for port in container.get("ports", [])),
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]
