"""What is started here listens on loopback, or behind a port that is published there; our own code never listens."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.running.ray_session import _start_options
from pipelines.settings import ComputeSettings

ROOT = Path(__file__).parents[2]
PACKAGES = ("genai_core", "jobs", "pipelines")
LISTENERS = {
    "bind",
    "listen",
    "create_server",
    "start_server",
    "serve_forever",
    "HTTPServer",
    "TCPServer",
    "run_simple",
}
SERVER = re.compile(r"mlflow (?:server|ui|models serve)\b[^\n`]*(?:\\\n[^\n`]*)*")
PAGES = [
    ROOT / "README.md",
    ROOT / "Makefile",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "infra").glob("*.md")),
]


def called(tree: ast.AST) -> set[str]:
    functions = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        f.attr if isinstance(f, ast.Attribute) else f.id
        for f in functions
        if isinstance(f, ast.Attribute | ast.Name)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_of_ours_listens(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not called(ast.parse(path.read_text())) & LISTENERS, path


def test_the_search_finds_a_listener() -> None:
    assert called(ast.parse("socket.socket().bind(('', 1)); HTTPServer()")) & LISTENERS == {
        "bind",
        "HTTPServer",
    }


def test_a_ray_of_our_own_has_no_dashboard_and_joins_no_other() -> None:
    options = _start_options(ComputeSettings(runner="ray"))
    assert options["include_dashboard"] is False and options["address"] == "local"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_servers_in_the_docs_listen_on_loopback(path: Path) -> None:
    for command in SERVER.findall(path.read_text()):
        hosts = re.findall(r"--host[= ](\S+)", command)
        assert set(hosts) <= {"127.0.0.1", "localhost"}, command
        # `mlflow server` and `ui` choose 127.0.0.1 by themselves, and so does `models serve`
    assert "0.0.0.0" not in path.read_text()


def published(service: dict[str, Any]) -> list[str]:
    return [str(port) for port in service.get("ports", ())]


def test_compose_publishes_on_loopback_alone_and_gives_no_service_more_than_it_needs() -> None:
    services = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in published(service)]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    for service in services.values():
        assert not service.get("privileged") and service.get("network_mode") != "host"
