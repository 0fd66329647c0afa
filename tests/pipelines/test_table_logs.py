"""Delta Lake and Iceberg: exactly the rows that their own libraries read, of any version; then what was added since."""

from __future__ import annotations

import base64
import datetime as dt
import json
import pickle
import string
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from genai_core import load
from genai_core.errors import InvalidData, InvalidInput
from pipelines import lake
from pipelines.context import Context
from pipelines.lake import LakeJob
from pipelines.lakes.lake_log import LakeLog
from pipelines.sources import DeltaSource, IcebergSource, Source, open_source

NLL = "negative_log_likelihood"


@pytest.fixture
def rows(small_table: pa.Table) -> pa.Table:
    """A column to sort by and one to partition by, beside those that the small model knows."""
    table = small_table.set_column(8, "carrier", small_table["carrier"].cast(pa.string()))
    number = np.arange(table.num_rows)
    return table.append_column("id", pa.array(number)).append_column("part", pa.array(number // 50))


@pytest.fixture
def delta(workplace: Path) -> Any:
    """`append(rows)` to the Delta table at lake/delta."""
    deltalake = pytest.importorskip("deltalake", reason="needs deltalake: pip install 'genai-core[delta]'")
    return lambda rows, **how: deltalake.write_deltalake(
        "lake/delta", rows, mode="append", partition_by=["part"], **how
    )


@pytest.fixture
def iceberg(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty Iceberg table db.flights in an SQLite catalogue, partitioned by `part`."""
    catalogs = pytest.importorskip(
        "pyiceberg.catalog", reason="needs pyiceberg: pip install 'genai-core[iceberg]'"
    )
    monkeypatch.setenv("PYICEBERG_CATALOG__TEST__URI", f"sqlite:///{workplace}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__TEST__WAREHOUSE", f"file://{workplace}/warehouse")
    monkeypatch.setattr(
        "pyiceberg.catalog._ENV_CONFIG", __import__("pyiceberg.utils.config").utils.config.Config()
    )
    return catalogs.load_catalog("test")


def created(catalog: Any, rows: pa.Table) -> Any:
    catalog.create_namespace("db")
    table = catalog.create_table("db.flights", schema=rows.schema)
    with table.update_spec() as change:
        change.add_identity("part")
    table = catalog.load_table("db.flights")
    table.append(rows)
    return table


def opened_delta(**settings: Any) -> Source:
    return open_source(DeltaSource(path="lake/delta", **settings))


def opened_iceberg(**settings: Any) -> Source:
    return open_source(IcebergSource(path="db.flights", catalog="test", **settings))


def ids(source: Source) -> list[int]:
    return sorted(i for batch in source.batches(["id"]) for i in batch.column("id").to_pylist())


def test_a_delta_table_is_read_as_its_own_library_reads_it(delta: Any, rows: pa.Table) -> None:
    import deltalake

    delta(rows.slice(0, 120))
    delta(rows.slice(120, 10))
    source = opened_delta()
    found = pa.Table.from_batches(list(source.batches())).sort_by("id")
    theirs = deltalake.DeltaTable("lake/delta").to_pyarrow_table().select(found.column_names).sort_by("id")
    assert found.num_rows == 130 and found.cast(theirs.schema).equals(theirs)
    assert source.reader.version == {"version": 1}
    assert {source.reader.keys(f.path)["part"] for f in source.fragments()} == {"0", "1", "2"}
    travelled = pickle.loads(pickle.dumps(source.reader))  # noqa: S301  as Ray sends it
    piece = next(source.pieces())
    assert travelled.read_with_rows(piece)[0].equals(source.read_with_rows(piece)[0])


def test_an_older_version_of_a_delta_table_is_read_by_number_and_by_time(delta: Any, rows: pa.Table) -> None:
    delta(rows.slice(0, 20))
    time.sleep(0.01)
    between = dt.datetime.now(dt.UTC)
    time.sleep(0.01)
    delta(rows.slice(20, 5))
    assert ids(opened_delta(version=0)) == ids(opened_delta(as_of=between)) == list(range(20))
    assert ids(opened_delta(filter="part == 0 and id >= 18")) == list(range(18, 25))
    with pytest.raises(ValueError, match="give version or as_of"):
        DeltaSource(path="lake/delta", version=0, as_of=between)
    with pytest.raises(InvalidData, match="cannot be read as a Delta Lake table"):
        opened_delta(version=7)


def test_delta_partitions_of_any_name_and_type(workplace: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    table = pa.table(
        {
            "id": [0, 1, 2, 3],
            "town": ["a b", "b/c%", None, "=x"],
            "day": [dt.date(2020, 1, 1)] * 4,
            "at": pa.array([dt.datetime(2020, 1, 1, 5)] * 4, pa.timestamp("us", "UTC")),
        }
    )
    deltalake.write_deltalake("lake/delta", table, partition_by=["town", "day", "at"])
    source = opened_delta()
    assert (
        pa.Table.from_batches(list(source.batches())).sort_by("id").select(table.column_names).equals(table)
    )
    assert ids(opened_delta(filter="town == 'b/c%'")) == [1]
    assert ids(opened_delta(filter="town is null")) == [2]


def deleted(*rows: int) -> str:
    """Row numbers as an inline deletion vector: a 64-bit roaring bitmap, little-endian, in Z85."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    plain = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    z85 = string.digits + string.ascii_lowercase + string.ascii_uppercase + ".-:+=^!/*?&<>()[]{}@%$#"
    b85 = string.digits + string.ascii_uppercase + string.ascii_lowercase + "!#$%&()*+-;<=>?@^_`{|}~"
    return base64.b85encode(plain).decode().translate(str.maketrans(b85, z85))


def test_what_the_files_of_a_delta_table_do_not_say_is_refused(delta: Any, rows: pa.Table) -> None:
    delta(rows.slice(0, 20))
    log = Path("lake/delta/_delta_log")
    first = (log / "00000000000000000000.json").read_text().splitlines()
    add = next(json.loads(line)["add"] for line in first if line.startswith('{"add"'))
    remove = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    vector = {"storageType": "i", "pathOrInlineDv": deleted(3, 4), "sizeInBytes": 40, "cardinality": 2}
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
    protocol |= {
        "readerFeatures": ["deletionVectors", "timestampNtz"],
        "writerFeatures": ["deletionVectors", "timestampNtz"],
    }
    lines = [{"protocol": protocol}, {"remove": remove}, {"add": add | {"deletionVector": vector}}]
    (log / "00000000000000000001.json").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    with pytest.raises(InvalidData, match=r"deletion vectors, which are not read; purge them first"):
        opened_delta()
    assert ids(opened_delta(version=0)) == list(range(20))
    with pytest.raises(InvalidData, match="is no Delta Lake table"):
        open_source(DeltaSource(path="lake"))


def test_an_iceberg_table_is_read_as_its_own_library_reads_it(iceberg: Any, rows: pa.Table) -> None:
    table = created(iceberg, rows.slice(0, 120))
    first = table.current_snapshot().snapshot_id
    table.append(rows.slice(120, 10))
    source = opened_iceberg()
    found = pa.Table.from_batches(list(source.batches())).sort_by("id")
    theirs = table.scan().to_arrow().sort_by("id")
    assert found.num_rows == 130 and found.cast(theirs.schema).equals(theirs)
    assert source.reader.version == {"snapshot": table.current_snapshot().snapshot_id}
    assert {source.reader.keys(f.path)["part"] for f in source.fragments()} == {"0", "1", "2"}
    assert ids(opened_iceberg(snapshot=first)) == list(range(120))
    assert ids(opened_iceberg(filter="part == 1 and id < 55")) == list(range(50, 55))
    travelled = pickle.loads(pickle.dumps(source.reader))  # noqa: S301  as Ray sends it
    piece = next(source.pieces())
    assert travelled.read_with_rows(piece)[0].equals(source.read_with_rows(piece)[0])
    with pytest.raises(InvalidData, match=f"no such snapshot; the last ones are: .*{first}"):
        opened_iceberg(snapshot=1)
    with pytest.raises(InvalidData, match=r"no table 'db\.trains'"):
        open_source(IcebergSource(path="db.trains", catalog="test"))
    with pytest.raises(InvalidInput, match=r"the catalogue 'nowhere' cannot be used.*pyiceberg\.yaml"):
        open_source(IcebergSource(path="db.flights", catalog="nowhere"))


def test_iceberg_columns_are_found_by_their_ids(iceberg: Any, rows: pa.Table) -> None:
    from pyiceberg.types import StringType

    table = created(iceberg, rows.slice(0, 10))
    with table.update_schema() as change:  # two names change places, and one column is new
        change.rename_column("delay", "was_delay")
        change.rename_column("seats", "delay")
    with table.update_schema() as change:
        change.add_column("gate", StringType())
    table = iceberg.load_table("db.flights")
    source = opened_iceberg(filter="delay > 200")  # which is `seats` in the file
    found = pa.Table.from_batches(list(source.batches())).sort_by("id")
    seats = rows.slice(0, 10)["seats"].combine_chunks()
    assert found["delay"].to_pylist() == seats.filter(pc.fill_null(pc.greater(seats, 200), False)).to_pylist()
    assert found["gate"].null_count == found.num_rows > 0 and "seats" not in found.column_names


def test_iceberg_delete_files_are_refused(
    iceberg: Any, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyIceberg writes none, so a task gets one on its way."""
    from pyiceberg.table import DataScan

    created(iceberg, rows.slice(0, 10))
    planned = DataScan.plan_files

    def with_deletes(self: Any) -> Any:
        tasks = list(planned(self))
        for task in tasks:
            object.__setattr__(task, "delete_files", {task.file})
        return tasks

    monkeypatch.setattr(DataScan, "plan_files", with_deletes)
    with pytest.raises(InvalidData, match=r"deleted by delete files, which are not read; compact"):
        opened_iceberg()


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_the_next_run_of_a_lake_job_scores_what_was_added_and_names_the_version(
    kind: str, small_model: Path, rows: pa.Table, request: pytest.FixtureRequest
) -> None:
    target = request.getfixturevalue(kind)
    source = {"kind": "delta", "path": "lake/delta"}
    if kind == "iceberg":
        table = created(target, rows.slice(0, 60))
        source, append = {"kind": "iceberg", "path": "db.flights", "catalog": "test"}, table.append
    else:
        append = target
        append(rows.slice(0, 60))
    fields = {
        "model": str(small_model),
        "source": source,
        "keep": ["id"],
        "scores": [NLL],
        "track": {"enabled": False},
    }
    job = LakeJob.model_validate(fields | {"sink": {"path": "out"}})
    quiet = Context(log=lambda text: None)
    first = lake.run(job, quiet)
    assert first["rows"] == 60 and lake.run(job, quiet)["reused"]
    folders = {path.parent.name for path in Path("out", first["run"], "data").rglob("*.parquet")}
    assert folders == {"part=0", "part=1"}
    append(rows.slice(60, 7))
    second = lake.run(job, quiet)
    assert second["rows"] == 7 and second["files"]["unchanged"] == 2
    scored = pa.concat_tables(
        [pq.read_table(p, partitioning=None) for p in Path("out").rglob("data/**/*.parquet")]
    ).sort_by("id")
    np.testing.assert_array_equal(
        scored[NLL].to_numpy(), load(small_model).score(rows.slice(0, 67), [NLL]).totals[NLL]
    )
    name = "version" if kind == "delta" else "snapshot"
    versions = [record["source"][name] for record in LakeLog("out").records()]
    assert len(set(versions)) == 2
    manifest = json.loads(Path("out", second["run"], "_MANIFEST.json").read_text())
    assert manifest["provenance"]["source"][name] == versions[1]
