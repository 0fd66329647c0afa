"""What is peculiar to a kind of source, and how a path becomes files and many schemas one."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from genai_core.errors import InvalidData
from pipelines.sources import CsvSource, ParquetSource, Source, open_source
from pipelines.sources.files import partition_fields
from pipelines.sources.schemas import cast, unify
from pipelines.stores import storage


def parquet(path: object, **settings: object) -> Source:
    return open_source(ParquetSource(path=str(path), **settings))


def csv(path: object, **settings: object) -> Source:
    return open_source(CsvSource(path=str(path), **settings))


def rows_of(source: Source) -> list[dict[str, object]]:
    return [row for batch in source.batches() for row in batch.to_pylist()]


def test_parquet_types_and_field_metadata_survive_exactly(tmp_path: Path) -> None:
    moment = dt.datetime(2013, 1, 1, 5)
    table = pa.table(
        {
            "codes": pa.DictionaryArray.from_arrays(
                pa.array([0, 1, None], pa.int8()), ["x", "y"], ordered=True
            ),
            "zoned": pa.array([moment, None, moment], pa.timestamp("ns", "Europe/Berlin")),
            "price": pa.array([decimal.Decimal("1.50"), None, None], pa.decimal128(9, 2)),
            "large": pa.array(["a", "", None], pa.large_string()),
            "small": pa.array([1, 2, 255], pa.uint8()),
            "nothing": pa.nulls(3),
            "nested": [{"x": 1}, None, {"x": None}],
            "a.b": [1.0, float("nan"), float("inf")],
        }
    )
    schema = table.schema.set(4, pa.field("small", pa.uint8(), nullable=False, metadata={"unit": "m"}))
    table = table.cast(schema).replace_schema_metadata({"pandas": "{}", "genai": "{}", "owner": "me"})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    source = parquet(tmp_path)
    assert source.schema.equals(schema.with_metadata({"owner": "me"}), check_metadata=True)
    again = pa.Table.from_batches(source.batches(), source.schema)
    assert again.drop(["a.b"]).equals(table.drop(["a.b"]))
    assert str(again.column("a.b").to_pylist()) == "[1.0, nan, inf]"


def test_files_of_different_schemas_become_one(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"n": pa.array([1], pa.int32()), "late": pa.nulls(1), "d": ["x"]}), tmp_path / "1.parquet"
    )
    dictionary = pa.array(["y"]).dictionary_encode()
    second = pa.table({"d": dictionary, "n": pa.array([2**40]), "late": [True], "new": ["z"]})
    pq.write_table(second, tmp_path / "2.parquet")
    source = parquet(tmp_path)
    assert source.schema == pa.schema(
        {"n": pa.int64(), "late": pa.bool_(), "d": pa.string(), "new": pa.string()}
    )
    assert rows_of(source) == [
        {"n": 1, "late": None, "d": "x", "new": None},
        {"n": 2**40, "late": True, "d": "y", "new": "z"},
    ]


def test_types_that_do_not_go_together_name_both_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"n": ["one"]}), tmp_path / "2.parquet")
    with pytest.raises(InvalidData, match=r"'n' is int64 in 1.parquet but string in 2.parquet"):
        parquet(tmp_path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["n", "n"]), tmp_path / "1.parquet")
    with pytest.raises(InvalidData, match="columns of the same name: n"):
        parquet(tmp_path)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_or_scrambled_file_is_named(tmp_path: Path, keep: float) -> None:
    pq.write_table(pa.table({"n": list(range(1000))}), tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "short.parquet").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InvalidData, match=r"short.parquet is not a readable parquet file"):
        parquet(tmp_path)


def test_damage_inside_a_page_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": list(range(10_000))}), path, write_page_checksum=True, compression="zstd")
    data = bytearray(path.read_bytes())
    data[2000:2100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(InvalidData, match=r"x.parquet is not a readable parquet file"):
        list(parquet(tmp_path).batches())


def test_statistics_rule_row_groups_out(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": list(range(100))}), tmp_path / "x.parquet", row_group_size=10)
    assert [(p.start, p.stop) for p in parquet(tmp_path, filter="n >= 85").pieces()] == [(80, 90), (90, 100)]
    assert [(p.start, p.stop) for p in parquet(tmp_path, filter="n == 5").pieces(4)] == [
        (0, 4),
        (4, 8),
        (8, 10),
    ]


def test_a_file_a_pattern_or_a_folder_may_be_given(tmp_path: Path) -> None:
    for name in ("a1.parquet", "a2.parquet", "b.parquet", "_hidden.parquet", ".tmp.parquet", "note.txt"):
        pq.write_table(pa.table({"n": [1]}), tmp_path / name)
    (tmp_path / "_old").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "_old" / "c.parquet")
    names = lambda source: [fragment.path for fragment in source.fragments()]  # noqa: E731
    assert names(parquet(tmp_path)) == ["a1.parquet", "a2.parquet", "b.parquet"]
    assert names(parquet(tmp_path / "a*.parquet")) == ["a1.parquet", "a2.parquet"]
    assert names(parquet(tmp_path / "note.txt")) == ["note.txt"]
    with pytest.raises(InvalidData, match=r"no file matches .*z\*"):
        parquet(tmp_path / "z*")


def test_folders_become_typed_columns() -> None:
    def types(*paths: str) -> dict[str, pa.DataType]:
        return {field.name: field.type for field in partition_fields(paths, "lake")}

    assert types("y=2013/m=01/x", "y=2014/m=12/x") == {"y": pa.int32(), "m": pa.int32()}
    assert types("id=9999999999/x", "id=1/x") == {"id": pa.int64()}
    assert types("day=2013-01-01/x", "day=__HIVE_DEFAULT_PARTITION__/x") == {"day": pa.string()}
    assert types("n=1_000/x") == {"n": pa.string()}
    assert types("x") == {}
    with pytest.raises(InvalidData, match="all files need the same partition folders"):
        types("y=1/x", "m=1/x")


def test_folder_values_are_decoded_and_a_column_in_the_file_wins(tmp_path: Path) -> None:
    for folder in ("city=New%20York", "city=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"n": [1]}), tmp_path / folder / "x.parquet")
    cities = [row["city"] for row in rows_of(parquet(tmp_path))]
    assert sorted(cities, key=str) == ["New York", None]
    assert [row["city"] for row in rows_of(parquet(tmp_path, filter="city is null"))] == [None]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "n=5").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "own" / "n=5" / "x.parquet")
    assert rows_of(parquet(tmp_path / "own")) == [{"n": 1}]


def test_output_of_a_job_that_has_not_finished_is_no_source(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1]}), tmp_path / "x.parquet")
    (tmp_path / "_JOB.json").write_text("{}")
    with pytest.raises(InvalidData, match="has not finished"):
        parquet(tmp_path)
    (tmp_path / "_MANIFEST.json").write_text("{}")
    assert parquet(tmp_path).rows == 1


def test_casts_between_dictionaries_keep_the_values() -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), ["x", "y"])
    wide = cast(values, pa.dictionary(pa.int32(), pa.large_string(), ordered=True))
    assert wide.type == pa.dictionary(pa.int32(), pa.large_string(), ordered=True)
    assert wide.to_pylist() == ["y", None, "x"]
    assert cast(values, pa.string()).to_pylist() == ["y", None, "x"]
    with pytest.raises(pa.ArrowInvalid):
        cast(pa.array([300]), pa.int8())


def test_a_column_that_some_files_lack_may_be_missing() -> None:
    whole = pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("m", pa.int64(), nullable=False)])
    merged = unify([("1", whole), ("2", pa.schema([pa.field("n", pa.int64(), nullable=False)]))])
    assert not merged.field("n").nullable
    assert merged.field("m").nullable


def test_csv_is_read_as_written(tmp_path: Path) -> None:
    text = 'id;name;when;zip;empty\n1;"a;""b""";2013-01-01 05:00:00;007;\n2;;2013-01-02 05:00:00;12345;\n'
    with gzip.open(tmp_path / "x.csv.gz", "wt", encoding="latin1") as file:
        file.write(text + "3;é;2013-01-03 00:00:00;1;\n")
    source = csv(tmp_path, delimiter=";", encoding="latin1", types={"zip": "string"})
    assert source.schema == pa.schema(
        {
            "id": pa.int64(),
            "name": pa.string(),
            "when": pa.timestamp("ms"),
            "zip": pa.string(),
            "empty": pa.null(),
        }
    )
    assert [row["name"] for row in rows_of(source)] == ['a;"b"', "", "é"]
    assert rows_of(source)[0]["zip"] == "007"
    nulled = csv(tmp_path, delimiter=";", encoding="latin1", null_values=["", "é"])
    assert [row["name"] for row in rows_of(nulled)] == ['a;"b"', None, None]


def test_csv_values_that_do_not_fit_the_guess_are_refused_with_a_way_out(tmp_path: Path) -> None:
    lines = "\n".join(str(i) for i in range(4_000_000))
    (tmp_path / "x.csv").write_text(f"n\n{lines}\nabc\n")
    with pytest.raises(InvalidData, match=r"x.csv .*int64.*abc.*`types`"):
        csv(tmp_path)


def test_csv_rows_of_uneven_length_and_unknown_settings(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(InvalidData, match=r"x.csv is not a readable csv file: .*Expected 2 columns, got 1"):
        csv(tmp_path)
    with pytest.raises(InvalidData, match="encoding 'klingon' is unknown"):
        csv(tmp_path, encoding="klingon")
    with pytest.raises(ValidationError, match="is no Arrow type"):
        CsvSource(path="x", types={"a": "number"})


def test_csv_columns_that_some_files_lack_are_missing_there(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("a\n1.5\n")
    assert rows_of(csv(tmp_path)) == [{"a": 1.0, "b": 2}, {"a": 1.5, "b": None}]


@pytest.mark.s3
def test_a_store_is_a_source_too(bucket: str) -> None:
    filesystem, root = storage.resolve(f"{bucket}/lake")
    for month in (1, 2):
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"n": list(range(month * 10))}), buffer, row_group_size=4)
        data = buffer.getvalue().to_pybytes()
        storage.put_bytes(filesystem, f"{root}/month={month}/x.parquet", data)
    source = parquet(f"{bucket}/lake", filter="month == 2 and n > 17")
    assert rows_of(source) == [{"n": 18, "month": 2}, {"n": 19, "month": 2}]
    piece = next(iter(source.pieces()))
    assert piece.etag
    storage.put_bytes(filesystem, f"{root}/month=2/x.parquet", data[:-1] + b"!")
    with pytest.raises(InvalidData, match="has changed since"):
        source.read_with_rows(piece)
    with pytest.raises(InvalidData, match="does not exist"):
        parquet(f"{bucket}/nowhere")
