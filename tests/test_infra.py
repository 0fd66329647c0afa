"""infra/: every manifest, shipped or written by `genai schedule`, against the schemas; image and Compose file."""

from __future__ import annotations

import copy
import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import kubernetes
from jobs.cli import genai
from jobs.schedule import IN_PODS, Request, write
from jobs.slots import Slot
from jobs.spec import entries
from tests.infra.rules import operator_faults, pods, privileges
from tests.infra.schemas import KUBERAY, compose_faults, faults

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
MANIFESTS = sorted([INFRA / "mlflow.yaml", *(INFRA / "kuberay").glob("*.yaml")])
WRITTEN = ("cronjob.yaml", "raycronjob.yaml")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
STAYING = sorted(set(SERVICES) - {"buckets", "genai"})


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def of_kind(name: str, kind: str) -> dict[str, Any]:
    (found,) = [one for one in documents(INFRA / name) if one["kind"] == kind]
    return found


# -- manifests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_shipped_manifest_would_be_accepted(path: Path) -> None:
    for document in documents(path):
        assert faults(document) == []
        assert document["apiVersion"] != KUBERAY or operator_faults(document) == []
        assert {place: privileges(pod) for place, pod in pods(document) if privileges(pod)} == {}
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "genai"


@pytest.mark.parametrize("form", IN_PODS)
@pytest.mark.parametrize(
    "more",
    [{}, {"namespace": "genai", "image": "registry/genai:2.0", "timezone": "Asia/Kathmandu"}],
    ids=["", "more"],
)
def test_a_written_manifest_would_be_accepted(tmp_path: Path, form: str, more: dict[str, str]) -> None:
    file = tmp_path / f"{'2026-a-long-name-of-a-job-file'}.yaml"
    file.write_text((INFRA / "nightly.yaml").read_text("utf-8").replace("/srv/genai/", "s3://lake/"))
    made = list(yaml.safe_load_all(write(form, Request(str(file), "0 2 * * *", **more))))
    assert [one["kind"] for one in made] == [
        "ConfigMap",
        {"kubernetes": "CronJob", "raycronjob": "RayCronJob"}[form],
    ]
    for document in made:
        assert faults(document) == []
        assert document["apiVersion"] != KUBERAY or operator_faults(document) == []
        assert not [fault for _, pod in pods(document) for fault in privileges(pod)]


def keys(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all fields whose names the API fixes: not those of labels, of data and the like."""
    free = {
        "labels",
        "matchLabels",
        "annotations",
        "data",
        "limits",
        "requests",
        "rayStartParams",
        "nodeSelector",
    }
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            labels = key == "selector" and all(isinstance(one, str) for one in value.values())
            if key not in free and not labels:
                yield from keys(value, (*path, key))
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from keys(item, (*path, index))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_typo_in_a_manifest_is_found(path: Path) -> None:
    """Each field of each document misspelt in turn: none of them passes in silence."""
    unseen = []
    for document in documents(path):
        for *way, key in keys(document):
            broken = copy.deepcopy(document)
            place = broken
            for step in way:
                place = place[step]
            place[f"{key}x"] = place.pop(key)
            if not faults(broken):
                unseen.append((*way, key))
    assert unseen == []


@pytest.mark.parametrize(
    ("name", "kind", "change", "fault"),
    [
        ("raycluster.yaml", "RayCluster", {"rayVersion": "2.40.0"}, "tokens want"),
        ("raycluster.yaml", "RayCluster", {"autoscalerOptions": {"version": "v1"}}, "second autoscaler"),
        ("rayjob.yaml", "RayJob", {"shutdownAfterJobFinishes": False}, "a time to live"),
        ("rayjob.yaml", "RayJob", {"clusterSelector": {"ray.io/cluster": "genai"}}, "one of"),
        ("raycronjob.yaml", "RayCronJob", {"schedule": "TZ=UTC 0 2 * * *"}, "timeZone"),
    ],
)
def test_what_the_operator_would_refuse_is_found(
    name: str, kind: str, change: dict[str, Any], fault: str
) -> None:
    document = of_kind(f"kuberay/{name}", kind)
    document["spec"] |= change
    assert fault in " ".join(operator_faults(document))


def test_a_privilege_too_many_is_found() -> None:
    ((_, pod),) = pods(of_kind("mlflow.yaml", "Deployment"))
    assert privileges(pod) == []
    pod["containers"][0] |= {"image": "genai-core:latest", "securityContext": {"privileged": True}}
    pod |= {"hostNetwork": True, "volumes": [{"name": "root", "hostPath": {"path": "/"}}]}
    assert len(privileges(pod)) == 6


@pytest.mark.parametrize("name", WRITTEN)
def test_the_shipped_schedules_are_what_the_command_in_their_head_writes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    text = (INFRA / "kuberay" / name).read_text("utf-8")
    _, command, rest = text.split("\n", 2)
    genai.main(shlex.split(command.lstrip("# "))[1:], standalone_mode=False)
    assert capsys.readouterr().out == rest


def test_the_server_is_found_by_its_service_and_its_policy() -> None:
    labels = of_kind("mlflow.yaml", "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("mlflow.yaml", "Service")["spec"]["selector"] == labels
    assert of_kind("mlflow.yaml", "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels


def test_the_jobs_in_the_manifests_are_jobs(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "ConfigMap":
                file.write_text(document["data"]["job.yaml"])
                assert entries(file, slot=Slot.at("2026-11-01")), path.name
    train = of_kind("kuberay/rayjob.yaml", "ConfigMap")["data"]["job.yaml"]
    assert train == (INFRA / "train.yaml").read_text("utf-8")


def test_the_cluster_has_groups_for_cpus_gpus_and_machines_that_may_be_taken_away() -> None:
    spec = of_kind("kuberay/raycluster.yaml", "RayCluster")["spec"]
    assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
    assert spec["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu", "spot"}
    (gpu,) = groups["gpu"]["template"]["spec"]["containers"]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == 1 and gpu["image"].endswith("-cuda")
    assert groups["spot"]["template"]["spec"]["tolerations"] and groups["spot"]["minReplicas"] == 0


def test_one_version_of_the_image_and_of_ray_everywhere() -> None:
    assert f"genai-core:{PROJECT['version']}" == kubernetes.IMAGE
    assert f"ray=={kubernetes.RAY_VERSION}" in LOCK.splitlines()
    text = "\n".join(path.read_text("utf-8") for path in (*MANIFESTS, INFRA / "compose.yaml"))
    assert set(re.findall(r"genai-core:(?:\$\{GENAI_VERSION:-)?([\d.]+)", text)) == {PROJECT["version"]}
    assert set(re.findall(r"rayVersion: (\S+)", text)) == {kubernetes.RAY_VERSION}


# -- the image -----------------------------------------------------------------------------------------------


def instructions() -> list[tuple[int, str, str]]:
    """(stage, instruction, arguments) of the Dockerfile, lines joined as Docker joins them."""
    text = re.sub(r"^\s*#.*\n", "", (INFRA / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", "").splitlines() if line.strip()]
    stage, found = 0, []
    for line in lines:
        word, _, rest = line.partition(" ")
        stage += word == "FROM"
        found.append((stage, word, rest.strip()))
    return found


def arguments(word: str, stages: set[int] | None = None) -> list[str]:
    return [rest for stage, name, rest in instructions() if name == word and (not stages or stage in stages)]


BUILD, LAST = 1, {2, 3, 4}  # the stages: what is thrown away, and what the image consists of


def test_the_image_is_pinned_unprivileged_and_says_how_it_is() -> None:
    defaults = dict(one.split("=", 1) for one in arguments("ARG") if "=" in one)
    bases = arguments("FROM")
    assert bases == ["python:${PYTHON} AS build", "python:${PYTHON} AS cpu", "cpu AS cuda", "${DEVICE}"]
    assert re.fullmatch(r"3\.11\.\d+-slim-\w+", defaults["PYTHON"]) and defaults["DEVICE"] == "cpu"
    assert arguments("USER") == ["1000:1000"] and instructions()[-3][1] == "USER", (
        "a number, and never root after it"
    )
    assert [one.rpartition("CMD ")[2] for one in arguments("HEALTHCHECK")] == ['["healthcheck"]']
    assert arguments("ADD") == [], "nothing is fetched that no index has checked"
    assert all(one.startswith("--from=build") or "healthcheck" in one for one in arguments("COPY", LAST))
    assert not re.search(r"apt-get|gcc|pip (?:\S+ )*install", " ".join(arguments("RUN", LAST)))
    said = " ".join([*arguments("ENV"), *arguments("ARG")])
    assert not re.search(r"PASSW|TOKEN|SECRET|\bKEY|CREDENTIAL", said, re.IGNORECASE)


def test_the_image_holds_what_the_lock_pins(tmp_path: Path) -> None:
    """The line that lists its requirements, run as in the build."""
    extras = next(one.partition("=")[2] for one in arguments("ARG") if one.startswith("EXTRAS="))
    (line,) = [one for one in arguments("RUN") if "tomllib" in one]
    script = (
        line.partition("&& ")[2]
        .replace("requirements.txt", str(tmp_path / "made"))
        .replace("python", sys.executable)
    )
    subprocess.run(["sh", "-c", script], cwd=ROOT, env={"EXTRAS": extras}, check=True)
    made = (tmp_path / "made").read_text().splitlines()
    wanted = PROJECT["dependencies"] + [
        r for extra in extras.split(",") for r in PROJECT["optional-dependencies"][extra]
    ]
    assert made == wanted
    locked = {one.partition("==")[0].lower() for one in LOCK.splitlines()}
    assert {re.match(r"[\w.-]+", one).group().lower() for one in made} <= locked  # type: ignore[union-attr]
    (install,) = [one for one in arguments("RUN") if "-r requirements.txt" in one]
    assert "install" in install and "-c requirements.lock" in install


@pytest.mark.parametrize(("device", "tag"), [("cpu", kubernetes.IMAGE), ("cuda", f"{kubernetes.IMAGE}-cuda")])
def test_make_image_tags_what_the_manifests_name(device: str, tag: str) -> None:
    said = subprocess.run(
        ["make", "--no-print-directory", "-n", "image", f"DEVICE={device}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    words = shlex.split(said.stdout.replace("\\\n", " "))
    assert words[words.index("--tag") + 1] == tag and f"DEVICE={device}" in words and words[-1] == "."
    assert not any(word.startswith("TORCH_INDEX") for word in words)


def test_only_what_the_image_needs_is_sent_to_its_build() -> None:
    first, *rules = [
        line
        for line in (INFRA / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert first == "*" and all((ROOT / name).exists() for name in kept)
    assert not [name for name in kept if "secrets" in name or "state" in name or name in ("infra", ".")]
    named = {
        word
        for one in arguments("COPY")
        if "--from" not in one
        for word in one.split()[:-1]
        if "--" not in word
    }
    assert named - {"."} <= set(kept)


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """A server on loopback, and the status that it answers with."""
    status = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/health", status
        server.shutdown()


def health(**environment: str) -> int:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, INFRA / "healthcheck.py"], env={"PATH": path, **environment}, capture_output=True
    ).returncode


def test_the_health_check_tells_well_from_ill(answering: tuple[str, list[int]]) -> None:
    url, status = answering
    assert health(HEALTH_URL=url, http_proxy="http://127.0.0.1:9") == 0
    status[0] = 503
    assert health(HEALTH_URL=url) == 1
    assert health(HEALTH_URL="http://127.0.0.1:9/") == 1, "nobody listens"
    assert health() == 0, "no server to ask: the command can be started"


# -- Compose -------------------------------------------------------------------------------------------------


def test_the_compose_file_is_one() -> None:
    assert compose_faults(COMPOSE) == []
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["mlflow"]["helthcheck"] = broken["services"]["postgres"].pop("healthcheck")
    assert "helthcheck" in " ".join(compose_faults(broken))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_no_privilege_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"] and not service.get("privileged")
    assert service["user"] == "${GENAI_UID:-1000}:${GENAI_GID:-1000}"
    assert re.search(r":(\$\{\w+:-)?\d[\w.-]*\}?$", service["image"]), "a version, not latest"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    for key, value in service.get("environment", {}).items():
        assert not re.search(r"PASSW|TOKEN|SECRET|CREDENTIAL", key) or value.startswith("/run/secrets/"), key


@pytest.mark.parametrize("name", STAYING)
def test_a_service_that_stays_is_watched(name: str) -> None:
    service = SERVICES[name]
    assert "healthcheck" in service or service["environment"]["HEALTH_URL"].startswith("http://127.0.0.1:")


def test_only_mlflow_reaches_the_database() -> None:
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert {name for name, one in SERVICES.items() if "database" in one["networks"]} == {"mlflow", "postgres"}


def test_the_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_bytes((INFRA / "secrets.sh").read_bytes())
    for _ in range(2):
        subprocess.run(["sh", script], check=True)
        made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
        first = locals().get("first", made)
    assert made == first and set(made) == {Path(one["file"]).name for one in COMPOSE["secrets"].values()}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o600}
    (identity,) = json.loads(made["s3.json"])["identities"]
    assert all(value in made["aws_credentials"] for value in identity["credentials"][0].values())
    assert len(set(made["ray_token"])) > 8 and len(made["ray_token"]) == 64
    owner = (tmp_path / "secrets" / "ray_token").stat()
    assert owner.st_uid != 0 and f"GENAI_UID={owner.st_uid}\n" in (tmp_path / ".env").read_text()
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert {"/infra/secrets/", "/infra/state/", "/infra/.env"} <= set(ignored)


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")  # Ray's own
def test_ray_and_mlflow_know_the_options_that_they_are_given() -> None:
    from mlflow.cli import cli as mlflow
    from ray.scripts.scripts import start

    for name in ("ray-head", "ray-worker"):
        words = [word.replace("${GENAI_WORKER_CPUS:-2}", "2") for word in SERVICES[name]["command"]]
        assert words[:2] == ["ray", "start"] and start.make_context("start", words[2:])
    (line,) = re.findall(r"exec mlflow server (.*)", SERVICES["mlflow"]["command"][-1])
    ((_, pod),) = pods(of_kind("mlflow.yaml", "Deployment"))
    for words in (shlex.split(line), pod["containers"][0]["command"][2:]):
        assert mlflow.commands["server"].make_context("server", words)
