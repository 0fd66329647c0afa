"""Pods as Kubernetes' strictest profile and KubeRay want them: what `genai schedule` puts into its manifests."""

from __future__ import annotations

from typing import Any

import yaml

IMAGE = "genai-core:0.1.0"  # what `make image` tags: this version
RAY_VERSION = "2.60.0"
PLACE = "/etc/genai"  # the job file
WORK = "/srv/genai"  # relative paths start here
UID = 1000  # of the image's user; as a number, or Kubernetes cannot see that it is not root
MAX_NAME = 36  # KubeRay appends a time and two random parts to it, and allows 53 characters for a cluster
LABELS = {
    "app.kubernetes.io/part-of": "genai-core"
}  # KubeRay writes `name` itself; network policies go by this
CLUSTER_TOKEN = {  # of a cluster that stays: infra/kuberay/raycluster.yaml
    "name": "RAY_AUTH_TOKEN",
    "valueFrom": {"secretKeyRef": {"name": "ray-token", "key": "auth_token", "optional": True}},
}
SMALL = {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}  # for a client of Ray's
HEALTHY = {
    "head": "http://127.0.0.1:8265/api/gcs_healthz",
    "worker": "http://127.0.0.1:52365/api/local_raylet_healthz",
}
UNPRIVILEGED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def metadata(name: str, namespace: str | None) -> dict[str, Any]:
    """Of anything that belongs to a job."""
    found: dict[str, Any] = {"name": name, "labels": LABELS}
    return found | ({"namespace": namespace} if namespace else {})


def config_map(name: str, namespace: str | None, text: str, **more: str) -> dict[str, Any]:
    """The job file, for `pod` to mount; `more`: shell scripts beside it."""
    about = metadata(name, namespace)
    data = {"job.yaml": text} | {f"{key}.sh": script for key, script in more.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data}


def pod(name: str, image: str, claim: str | None, container: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A pod template that the `restricted` profile admits.

    Credentials and MLFLOW_TRACKING_URI come from a Secret of the job's `name`, where there is one; `claim` is the
    PersistentVolumeClaim that holds WORK, which without it ends with the pod.
    """
    work = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
    filled = {
        "image": image,
        "workingDir": WORK,
        "envFrom": [{"secretRef": {"name": name, "optional": True}}],
        "volumeMounts": [
            {"name": "job", "mountPath": PLACE, "readOnly": True},
            {"name": "work", "mountPath": WORK},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "securityContext": UNPRIVILEGED,
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container | {key: value for key, value in filled.items() if key not in container}],
        "volumes": [
            {"name": "job", "configMap": {"name": name}},
            {"name": "work", **work},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return {"metadata": {"labels": LABELS}, "spec": spec | more}


def cluster(name: str, image: str, claim: str | None) -> dict[str, Any]:
    """A RayCluster's spec: a head that runs the driver and no tasks, and workers that come and go with the work."""
    # the autoscaler, in the head's pod, creates and deletes worker pods through Kubernetes
    head = pod(name, image, claim, _node("head", "1", "3Gi"), automountServiceAccountToken=True)
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": 120,
            "resources": _size("200m", "512Mi"),
            "securityContext": UNPRIVILEGED,
        },
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": head,
        },
        "workerGroupSpecs": [
            {
                "groupName": "cpu",
                "replicas": 1,
                "minReplicas": 1,
                "maxReplicas": 4,
                "rayStartParams": {},
                "template": pod(name, image, claim, _node("worker", "2", "4Gi")),
            }
        ],
    }


def _node(role: str, cpu: str, memory: str) -> dict[str, Any]:
    """The Ray container; its probes are the image's, since KubeRay's own want wget."""
    probe = {"exec": {"command": ["healthcheck"]}, "periodSeconds": 10, "timeoutSeconds": 8}
    return {
        "name": f"ray-{role}",
        "env": [{"name": "HEALTH_URL", "value": HEALTHY[role]}],
        "resources": _size(cpu, memory),
        "readinessProbe": probe,
        "livenessProbe": probe | {"initialDelaySeconds": 60, "failureThreshold": 12},
    }


def _size(cpu: str, memory: str) -> dict[str, Any]:
    given = {"cpu": cpu, "memory": memory}
    return {"requests": given, "limits": given}


def submitter(name: str, image: str) -> dict[str, Any]:
    """The pod that hands a RayJob's entry point to its cluster; KubeRay's own says nothing about privileges."""
    return pod(name, image, None, {"name": "ray-job-submitter", "resources": SMALL})


class _Dumper(yaml.SafeDumper):
    """Every part written out, and texts of several lines as they are: people will read and change this."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text_block)


def documents(*made: dict[str, Any]) -> str:
    """As YAML that people can read."""
    return yaml.dump_all(made, Dumper=_Dumper, sort_keys=False, width=120)
