"""A job may ask for more than a cluster has where an autoscaler reports to it; elsewhere it is refused at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process and a Ray of its own: what an autoscaler has reported once stays with the cluster.
SCRIPT = """
import ray
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import AutoscalingState
from genai_core.errors import Unavailable
from pipelines.runners import _asked_cpus
from pipelines.settings import ComputeSettings

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
said = []
print(_asked_cpus(ray, ComputeSettings(workers=2), 2, said.append), said)
try:
    print(_asked_cpus(ray, ComputeSettings(workers=3), 3, said.append))
except Unavailable as error:
    print(error)
gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
gcs.report_autoscaling_state(AutoscalingState(autoscaler_state_version=1).SerializeToString())  # as Ray's own does
print(_asked_cpus(ray, ComputeSettings(workers=3), 3, said.append), said)
"""


@pytest.mark.ray
def test_what_is_missing_is_waited_for_where_it_may_come() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    enough, refused, waited = done.stdout.splitlines()
    assert enough == "0.9 []"
    assert refused == "3 workers with 1 CPU each need 3, Ray has 2; set compute.workers: 2"
    assert waited.startswith("0.9 [") and "autoscaler is asked for more" in waited
