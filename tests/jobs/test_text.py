"""Texts from end to end: learnt, continued from a prompt, scored; odd words are marked, bad rows are faults."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.cli import main

JOBS = """\
job: train
name: notes
source: {kind: text, path: notes}
modality: {kind: text, length: 48, tokens: TOKENS, vocabulary: 300}
model: {kind: autoregressive, hidden: 32, layers: 1}
fit: {seed: 1, max_epochs: 10, batch_size: 32}
track: {enabled: false}
sink: {path: out/model}
---
job: generate
model: out/model
rows: 40
prompt: "the red"
temperature: 0.8
top_p: 0.9
track: {enabled: false}
compute: {runner: inline}
sink: {path: out/made}
---
job: score
model: out/model
source: {kind: text, path: new}
top_k: 3
keep: [line]
track: {enabled: false}
compute: {runner: inline}
sink: {path: out/scores}
"""
NEW = [
    b"the red cat sat on the mat",
    b"the blue dog xq#7z by the door",
    b"\xff\xfe",
    b"a small hen sat on the mat",
]


@pytest.mark.parametrize("tokens", ["bytes", "bpe"])
def test_train_generate_and_score(
    tokens: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = ("the", "a"), ("red", "blue", "small"), ("cat", "dog", "hen", "pig"), ("sat", "lay", "ran")
    words = itertools.product(*parts, ("on the mat", "by the door"))
    notes = [" ".join(line).encode() for line in words] + [b"a dog ran by the door " * 9]
    for folder, lines in (("notes", notes), ("new", NEW)):
        Path(folder).mkdir()
        Path(folder, "a.txt").write_bytes(b"\n".join(lines))
    Path("job.yaml").write_text(JOBS.replace("TOKENS", tokens))
    assert main(["run", "job.yaml"]) == 0, capsys.readouterr().err
    if tokens == "bytes":
        assert "1 of 145 texts have more than 48 tokens" in capsys.readouterr().err

    made = pq.read_table("out/made/data")
    texts = made["text"].to_pylist()
    assert made.schema.names == ["text"] and len(set(texts)) > 5
    assert all(text.startswith("the red") for text in texts)
    assert sum(text.endswith(("the mat", "the door")) for text in texts) > 20

    scored = pq.read_table("out/scores/data").sort_by("line").to_pylist()
    assert scored[0]["maximum_surprise"] < scored[1]["maximum_surprise"]
    assert scored[2]["maximum_surprise"] is None
    assert scored[2]["fault"] == "text is not UTF-8: byte 0xff at 0"
    assert scored[1]["why"][0]["column"] == "text[13:18]"
    assert ">>xq#7z<<" in scored[1]["why"][0]["value"]
    (oddest, *_) = pq.read_table("out/scores/_anomalies.parquet").to_pylist()
    assert oddest["line"] == 2
