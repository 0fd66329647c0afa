"""Makes kubernetes.json and compose.json anew from the Python packages that carry their schemas.

    pip download --no-deps -d DIR kubernetes-validate==1.37.0 check-jsonschema==0.39.0
    python tests/infra/vendor.py DIR

Left out: descriptions, and every definition that KINDS do not need. Both sources are under Apache-2.0: NOTICE.md.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KUBERNETES = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"
COMPOSE = "check_jsonschema/builtin_schemas/vendor/compose-spec.json"
CORE, META = "io.k8s.api.core.v1", "io.k8s.apimachinery.pkg.apis.meta.v1"
KINDS = {  # what the manifests hold, and what KubeRay's kinds are made of
    *(
        f"{CORE}.{name}"
        for name in (
            "ConfigMap",
            "Namespace",
            "PersistentVolumeClaim",
            "Service",
            "PodTemplateSpec",
            "EnvVarSource",
        )
    ),
    f"{META}.ObjectMeta",
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.batch.v1.CronJob",
    "io.k8s.api.batch.v1.Job",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.networking.v1.IngressTLS",
}
INWARD = "#/$defs/"


def main(folder: Path) -> None:
    """Write both files."""
    definitions = read(folder, "kubernetes_validate-*.whl", KUBERNETES)["$defs"]
    needed: dict[str, Any] = {}
    waiting = set(KINDS)
    while waiting:
        name = waiting.pop()
        needed[name] = bare(definitions[name])
        waiting |= referenced(needed[name]) - needed.keys()
    write("kubernetes.json", {"$defs": needed})
    write("compose.json", bare(read(folder, "check_jsonschema-*.whl", COMPOSE)))


def read(folder: Path, wheel: str, name: str) -> Any:
    """A JSON file out of a wheel."""
    (found,) = folder.glob(wheel)
    with zipfile.ZipFile(found) as archive:
        return json.loads(archive.read(name))


def write(name: str, schema: dict[str, Any]) -> None:
    """One definition a line, so that a change of versions can be read."""
    definitions = schema.pop("$defs")
    lines = [
        f"{json.dumps(key)}: {json.dumps(definitions[key], sort_keys=True)}" for key in sorted(definitions)
    ]
    head = json.dumps(schema, sort_keys=True)[:-1]
    text = f'{head}{", " if schema else ""}"$defs": {{\n' + ",\n".join(lines) + "\n}}\n"
    (HERE / name).write_text(text, encoding="utf-8")


def bare(node: Any, names: bool = False) -> Any:
    """Without descriptions, and with references into the same file; `names`: the keys are names of properties."""
    if isinstance(node, list):
        return [bare(item) for item in node]
    if not isinstance(node, dict):
        return f"{INWARD}{node.partition(INWARD)[2]}" if isinstance(node, str) and INWARD in node else node
    inside = {"properties", "patternProperties", "$defs"}
    return {
        key: bare(value, not names and key in inside)
        for key, value in node.items()
        if names or not (key == "description" or key.startswith("x-kubernetes"))
    }


def referenced(node: Any) -> set[str]:
    """The names of the definitions that a schema refers to."""
    if isinstance(node, list):
        return {name for item in node for name in referenced(item)}
    if isinstance(node, dict):
        return {name for item in node.values() for name in referenced(item)}
    return {node.removeprefix(INWARD)} if isinstance(node, str) and node.startswith(INWARD) else set()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
