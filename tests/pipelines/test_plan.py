"""Plans cover everything once, shards keep their names and seeds, and ids change with what decides the bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.errors import InvalidInput
from pipelines.plan import (
    PACKED,
    Plan,
    Shard,
    code_fingerprint,
    job_id,
    plan_generation,
    plan_scoring,
    shard_seed,
    versions,
)
from pipelines.sources import CsvSource, ParquetSource, open_source


@settings(deadline=None)  # a busy machine is no fault
@given(st.integers(1, 10_000), st.integers(1, 3000))
def test_generation_makes_every_row_once(rows: int, rows_per_shard: int) -> None:
    shards = plan_generation(rows, 7, rows_per_shard).shards
    spans = [(shard.payload["first"], shard.payload["first"] + shard.rows) for shard in shards]
    assert [low for low, _ in spans] == [0, *(high for _, high in spans[:-1])]
    assert spans[-1][1] == rows
    assert all(shard.rows == rows_per_shard for shard in shards[:-1])
    assert [shard.id for shard in shards] == list(range(len(shards)))


def test_seeds_are_what_they_always_were() -> None:
    assert [shard_seed(7, i) for i in range(3)] == [
        5751740483655848561,
        7643869921872156431,
        3167967750878333780,
    ]
    seeds = {shard_seed(job, shard) for job in range(30) for shard in range(300)}
    assert len(seeds) == 9000
    assert max(seeds) < 2**63


def test_more_rows_leave_the_first_shards_as_they_are() -> None:
    assert plan_generation(300, 7, 100).shards == plan_generation(500, 7, 100).shards[:3]


def test_absurdly_many_shards_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"set rows_per_shard to 1,000,000 or more"):
        plan_generation(10**12, 0)


@pytest.mark.parametrize("rows_per_shard", [3, 10, 64, 1000])
def test_scoring_reads_every_row_once_in_shards_of_about_the_size(
    tmp_path: Path, rows_per_shard: int
) -> None:
    for number, (rows, group) in enumerate([(100, 100), (5, 5), (64, 8), (1, 1), (30, 7)]):
        pq.write_table(
            pa.table({"n": list(range(rows))}), tmp_path / f"{number}.parquet", row_group_size=group
        )
    plan = plan_scoring(open_source(ParquetSource(path=str(tmp_path))), rows_per_shard)
    read = [(p.path, row) for shard in plan.shards for p in shard.pieces for row in range(p.start, p.stop)]
    assert len(read) == len(set(read)) == plan.rows == 200
    assert all(shard.rows <= PACKED * rows_per_shard for shard in plan.shards)
    assert len(plan.shards) <= 2.1 * 200 / rows_per_shard + 1


def test_row_groups_that_follow_each_other_are_read_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": list(range(100))}), tmp_path / "x.parquet", row_group_size=1)
    (shard,) = plan_scoring(open_source(ParquetSource(path=str(tmp_path))), 1000).shards
    assert [(p.start, p.stop) for p in shard.pieces] == [(0, 100)]


def test_a_csv_file_is_one_shard(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("n\n" + "\n".join(map(str, range(100))) + "\n")
    assert [s.rows for s in plan_scoring(open_source(CsvSource(path=str(tmp_path))), 10).shards] == [100]


def test_shards_survive_json() -> None:
    shard = Shard(
        3, shard_seed(1, 3), 10, {"pieces": [{"path": "x", "size": 1, "etag": "e", "start": 0, "stop": 10}]}
    )
    assert Shard.from_json(json.loads(json.dumps(shard.to_json()))) == shard
    assert shard.name == "00003"
    assert shard.pieces[0].rows == 10


def test_the_plan_hash_is_that_of_the_work() -> None:
    plan = plan_generation(300, 7, 100)
    others = [plan_generation(301, 7, 100), plan_generation(300, 8, 100), plan_generation(300, 7, 99)]
    assert plan_generation(300, 7, 100).hash == plan.hash
    assert plan.hash not in {other.hash for other in others}
    assert Plan("score", plan.shards).hash != plan.hash


def test_job_ids_change_with_every_part_and_not_with_their_order() -> None:
    parts = {"model": "sha256:1", "plan": "sha256:2", "spec": {"seed": 1, "where": {}}}
    assert job_id("generate", parts) == job_id("generate", dict(reversed(parts.items())))
    changed = [{**parts, key: "other"} for key in parts]
    ids = {job_id("generate", p) for p in [parts, *changed]} | {job_id("score", parts)}
    assert len(ids) == 5


def test_the_code_and_the_libraries_are_named() -> None:
    assert code_fingerprint().startswith("sha256:")
    assert {"genai-core", "python", "machine", "numpy", "pillow", "pyarrow", "torch"} == set(versions())
