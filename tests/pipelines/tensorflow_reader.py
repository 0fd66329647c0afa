"""Reads an output and its TFRecord export with TensorFlow; prints what it saw as JSON. Needs tensorflow and pyarrow."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import tensorflow as tf

TYPES = {"bytes_list": tf.string, "float_list": tf.float32, "int64_list": tf.int64}
DEFAULTS = {"bytes_list": b"", "float_list": 0.0, "int64_list": -1}


def main(output: str, export: str) -> None:
    """The three ways to the same rows."""
    sidecar = json.loads((Path(export) / "_EXPORT.json").read_text())
    found = {"tfrecord": by_tfrecord(export, sidecar), "parquet": by_pyarrow(output)}
    print(json.dumps({**found, "rewritten": rewritten(export, sidecar)}))


def by_tfrecord(export: str, sidecar: dict) -> list[dict]:
    """As docs/tensorflow.md shows."""
    spec = {
        name: tf.io.FixedLenFeature(f["shape"], TYPES[f["list"]], None if f["shape"] else DEFAULTS[f["list"]])
        for name, f in sidecar["features"].items()
    }
    files = [str(Path(export) / f["file"]) for f in sidecar["files"]]
    rows = tf.data.TFRecordDataset(files).map(lambda record: tf.io.parse_single_example(record, spec))
    return [{name: plain(value.numpy()) for name, value in row.items()} for row in rows]


def by_pyarrow(output: str) -> list[dict]:
    """Without an export: pyarrow reads, TensorFlow batches."""
    data = ds.dataset(Path(output) / "data", format="parquet")

    def rows():
        for batch in data.to_batches(columns=["image", "name", "weight"]):
            pictures = batch.column("image").to_numpy_ndarray()
            others = zip(batch.column("name").to_pylist(), batch.column("weight").to_pylist(), strict=True)
            for picture, (name, weight) in zip(pictures, others, strict=True):
                yield {"image": picture, "name": name, "weight": weight}

    signature = {
        "image": tf.TensorSpec((2, 2, 1), tf.uint8),
        "name": tf.TensorSpec((), tf.string),
        "weight": tf.TensorSpec((), tf.float32),
    }
    read = tf.data.Dataset.from_generator(rows, output_signature=signature)
    return [{name: plain(value.numpy()) for name, value in row.items()} for row in read]


def rewritten(export: str, sidecar: dict) -> str:
    """The first file, parsed and written again by TensorFlow: the same bytes if the writer does as it does."""
    path = Path(export) / sidecar["files"][0]["file"]
    copy = path.with_suffix(".copy")
    with tf.io.TFRecordWriter(str(copy)) as writer:
        for record in tf.data.TFRecordDataset(str(path)):
            example = tf.train.Example.FromString(record.numpy())
            writer.write(example.SerializeToString(deterministic=True))
    return copy.read_bytes().hex()


def plain(value: object) -> object:
    """For JSON."""
    if isinstance(value, bytes):
        return value.decode()
    return np.asarray(value).tolist()


if __name__ == "__main__":
    main(*sys.argv[1:])
