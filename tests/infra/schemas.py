"""Manifests against the schemas of Kubernetes, KubeRay and Compose, offline: a misspelt field is a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

HERE = Path(__file__).parent
GROUPS = {
    "v1": "io.k8s.api.core.v1",
    "apps/v1": "io.k8s.api.apps.v1",
    "batch/v1": "io.k8s.api.batch.v1",
    "networking.k8s.io/v1": "io.k8s.api.networking.v1",
}
KUBERAY = "ray.io/v1"


def faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with one Kubernetes document, each fault with its place."""
    version, kind = str(document.get("apiVersion")), str(document.get("kind"))
    file = "kuberay.yaml" if version == KUBERAY else "kubernetes.json"
    name = kind if version == KUBERAY else f"{GROUPS.get(version)}.{kind}"
    if name not in _schemas()[file]["$defs"]:
        return [f"$: there is no schema of kind {kind!r} in apiVersion {version!r}"]
    return list(_faults({"$ref": f"{file}#/$defs/{name}"}, document))


def compose_faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with a Compose file."""
    return list(_faults({"$ref": "compose.json"}, document))


def _faults(schema: dict[str, Any], document: Any) -> Iterator[str]:
    for error in Draft202012Validator(schema, registry=_registry()).iter_errors(document):
        yield f"{error.json_path}: {error.message}"


@cache
def _schemas() -> dict[str, dict[str, Any]]:
    return {
        "kubernetes.json": json.loads((HERE / "kubernetes.json").read_text("utf-8")),
        "compose.json": json.loads((HERE / "compose.json").read_text("utf-8")) | {"$id": "compose.json"},
        "kuberay.yaml": yaml.safe_load((HERE / "kuberay.yaml").read_text("utf-8")),
    }


@cache
def _registry() -> Registry[Any]:
    named = ((name, Resource(schema, specification=DRAFT202012)) for name, schema in _schemas().items())
    return Registry().with_resources(named)
