"""What this project stands on: a bill of materials in the right form, and no licence that binds its users."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
# Strong or commercial; the Boost licence is BSL-1.0, the Business Source licence BUSL
BINDING = re.compile(
    r"\bA?GPL|General Public|BUSL|Business Source|SSPL|Server Side|Commons Clause|Elastic", re.I
)
LESSER = re.compile(r"\bLGPL|Lesser General Public", re.I)


@cache
def bill() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "docs" / "sbom.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.bill())


def licences(component: dict[str, Any]) -> list[str]:
    return [one.get("expression") or one["license"]["name"] for one in component.get("licenses", ())]


def test_the_bill_has_the_form_of_cyclonedx() -> None:
    found = bill()
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found["serialNumber"])
    components = found["components"]
    refs = [component["bom-ref"] for component in components]
    own = found["metadata"]["component"]["bom-ref"]
    assert len(set(refs)) == len(refs) and own not in refs
    for component in components:
        assert component["type"] == "library" and component["scope"] in ("required", "optional", "excluded")
        assert re.fullmatch(r"pkg:pypi/[a-z0-9-]+@[^@]+", component["purl"])
    for entry in found["dependencies"]:
        assert entry["ref"] in (own, *refs) and set(entry["dependsOn"]) <= set(refs)


def test_the_bill_lists_the_lock_and_says_who_needs_what() -> None:
    names = {component["name"]: component for component in bill()["components"]}
    lock = (ROOT / "requirements.lock").read_text()
    assert len(names) == len(re.findall(r"(?m)^[A-Za-z0-9_.-]+==", lock))
    scopes = {name: names[name]["scope"] for name in ("torch", "ray", "soundfile", "pytest", "ruff")}
    assert scopes == {
        "torch": "required", "ray": "required", "soundfile": "optional", "pytest": "excluded", "ruff": "excluded",
    }  # fmt: skip
    for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        assert names[re.split(r"[\[><=,]", name)[0].lower()]["scope"] == "required"


def test_every_package_says_its_licence_and_none_binds_its_users() -> None:
    for component in bill()["components"]:
        said = licences(component)
        assert said, f"{component['name']} names no licence: read its files, and add it to docs/sbom.py"
        assert not any(BINDING.search(text) or LESSER.search(text) for text in said), component["name"]


@pytest.mark.parametrize(
    "text", ["GPL-3.0-only", "GNU General Public License v2 (GPLv2)", "AGPL-3.0", "BUSL-1.1"]
)
def test_binding_licences_are_known(text: str) -> None:
    assert BINDING.search(text) and not BINDING.search("Apache-2.0 AND BSL-1.0 AND MPL-2.0")


def test_the_lock_pins_every_package_exactly() -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines()]
    assert [line for line in lines if line and not re.fullmatch(r"[\w.-]+==[\w.!+-]+(\s*;.+)?", line)] == []
