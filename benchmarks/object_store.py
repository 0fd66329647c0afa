"""What a store costs: listing many files, and the requests of a job's commits, of resuming it and of asking again.

python -m benchmarks.object_store                  listing 100,000 files <= 20 s; requests a shard; resume reads no data
python -m benchmarks.object_store --files 10000    smaller

The store is moto's server on loopback (its own Python answers every request: the seconds are mostly its own);
the requests are counted by the proxy that the tests use to inject faults.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from benchmarks.record import save
from pipelines.outputs.sink import Sink
from pipelines.plan import job_id, plan_generation
from pipelines.stores import storage
from tests.pipelines.fault_proxy import FaultProxy

BUCKET = "benchmark"
SHARDS = 200
ROWS = 100


def main() -> None:
    """Start the store, measure, stop it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the store that the measurement asks")
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.files)
        return
    with store(chosen.files) as (address, server), FaultProxy(address).running() as proxy:
        figures = {
            "load_average_of_15_minutes": round(
                os.getloadavg()[2], 1
            ),  # above the cores: seconds are others' too
            "listing": listing(chosen.files, chosen.repeats, server),
            "requests": requests(address, proxy),
        }
    save("object_store", figures, files=chosen.files, repeats=chosen.repeats, shards=SHARDS, store="moto")


@contextlib.contextmanager
def store(files: int) -> Iterator[tuple[str, int]]:
    """The address of a server with so many files, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.object_store", "--serve", str(port), "--files", str(files)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    address = f"http://127.0.0.1:{port}"
    os.environ.update(keys, AWS_ENDPOINT_URL=address)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield address, server.pid
    finally:
        server.terminate()
        server.wait()


def serve(port: int, files: int) -> None:
    """moto's server; the files are put there from inside, since it takes 75 a second through its front door."""
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{port}"
    pafs.S3FileSystem(endpoint_override=address, allow_bucket_creation=True).create_dir(BUCKET)
    inside = s3_backends["123456789012"]["aws"]
    for number in range(files):
        inside.put_object(BUCKET, f"many/data/part-{number:05d}-0123456789ab.parquet", b"x")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()


def listing(files: int, repeats: int, server: int) -> dict[str, Any]:
    """Seconds to list as many files as a large output has; of them, the CPU-seconds of this side and of the store's."""
    filesystem, root = storage.resolve(f"s3://{BUCKET}/many/data")
    walls, ours, theirs = [], [], []
    for _ in range(repeats):
        wall, mine, its = time.monotonic(), own_cpu(), cpu_of(server)
        found = storage.list_files(filesystem, root)
        assert len(found) == files
        walls.append(time.monotonic() - wall)
        ours.append(own_cpu() - mine)
        theirs.append(cpu_of(server) - its)
    return {
        "files": files,
        "seconds": [round(wall, 2) for wall in walls],
        "median_seconds": round(statistics.median(walls), 2),
        "median_cpu_seconds": round(statistics.median(ours), 2),
        "median_cpu_seconds_of_the_server": round(statistics.median(theirs), 2),
    }


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(process: int) -> float:
    import psutil

    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


def requests(address: str, proxy: FaultProxy) -> dict[str, Any]:
    """How many a job sends: doing half of it, resuming it, asking for it again; and those that read finished data."""
    os.environ["AWS_ENDPOINT_URL"] = proxy.address
    parts = {"seed": 7}
    job = {"job_id": job_id("generate", parts), "verb": "generate", "parts": parts}
    plan, uri = plan_generation(ROWS * SHARDS, 7, ROWS), f"s3://{BUCKET}/job"
    found: dict[str, Any] = {}
    for phase, stop in (("first half", SHARDS // 2), ("the rest", SHARDS), ("asked again", SHARDS)):
        proxy.heal()
        sink, used, started = Sink(uri), own_cpu(), time.monotonic()
        sink.check(job)
        if not sink.manifest():
            done = sink.prepare(job)
            for shard in plan.shards[:stop]:
                if shard.id not in done and sink.committed(shard) is None:
                    table = pa.table({"id": range(shard.payload["first"], shard.payload["first"] + ROWS)})
                    sink.write_shard(shard, table, {"job_id": job["job_id"]})
            if stop == SHARDS:
                sink.finish(plan, {"job_id": job["job_id"]})
        found[phase] = {
            "seconds": round(time.monotonic() - started, 2),
            "cpu_seconds_with_the_proxy": round(own_cpu() - used, 2),
            "by_method": dict(sorted(Counter(request.method for request in proxy.seen).items())),
            "that_read_data": len(proxy.asked("GET", "/job/data/")),
        }
    os.environ["AWS_ENDPOINT_URL"] = address
    return found


if __name__ == "__main__":
    main()
