"""Trains on a cluster of two small machines, one of which is lost at the first checkpoint; not a test by itself.

python lost_machine.py JOB.json        a train job; its compute.runner becomes the cluster's address
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

os.environ |= {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "2",  # a machine counts as lost after two seconds instead of fifteen
    "RAY_raylet_start_wait_time_s": "240",  # a busy machine takes its time
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
}
STORE_BYTES = 100_000_000


def main() -> None:
    """Prints the job's result, with the moment at which the machine was lost."""
    from ray.cluster_utils import Cluster

    from pipelines import train
    from pipelines.context import Context
    from pipelines.sources import open_source
    from pipelines.training.checkpoints import Checkpoints

    machine = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=machine | {"include_dashboard": False})
    spot = cluster.add_node(**machine)
    try:
        spec = json.loads(Path(sys.argv[1]).read_text())
        spec["compute"]["runner"] = cluster.address
        job = train.TrainJob.model_validate(spec)
        kept = Checkpoints(job.checkpoints, train._id(job, open_source(job.source)))

        def lose() -> None:
            while kept.facts() is None:
                time.sleep(0.05)
            os.kill(spot.all_processes["raylet"][0].process.pid, signal.SIGKILL)

        threading.Thread(target=lose, daemon=True).start()
        print(json.dumps(train.run(job, Context())))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
