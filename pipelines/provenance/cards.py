"""Model cards and data cards (Mitchell et al. 2019; Gebru et al. 2021), as JSON and Markdown: `genai card`, and with
every trained model

Nothing is made up: what a card says was measured, written down by a job, or said by whoever wrote the job file. What
nobody said is "not stated".
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.artifact import Header, read_header
from genai_core.errors import InvalidInput
from pipelines.outputs.sink import MANIFEST, Sink
from pipelines.progress import printable
from pipelines.provenance import croissant
from pipelines.provenance.rights import NOT_STATED, PERSONAL
from pipelines.provenance.sealing import read_run
from pipelines.stores import storage

FORMAT = 1
MODEL, DATA, CROISSANT = "model_card", "data_card", "croissant.json"
RIGHTS = ("subjects", "consent", "licence", "purpose", "contact")
LIKELIHOOD = {
    "exact": "explicit: the likelihood is exact",
    "lower": "explicit: a lower bound of the likelihood",
    None: "implicit: no likelihood",
}
ALWAYS = (
    "Synthetic records follow what was learnt, with its biases and gaps; they add no facts about the world.",
    "A model can repeat training records: without a privacy guarantee, treat it and what it makes as its data.",
    "A likelihood tells how usual a record is among the training data, not whether it is right, good or allowed.",
)
Card = dict[str, Any]


def of_path(path: str) -> Card:
    """The card of a model's directory or a finished output. Raises InvalidInput for anything else."""
    if "://" not in path and (Path(path) / "artifact.json").exists():
        return of_model(read_header(path))
    sink = Sink(path)
    manifest = sink.manifest()
    if manifest is None:
        raise InvalidInput(
            f"{storage.mask(path)} is neither a model's directory nor a finished output ({MANIFEST})"
        )
    return of_output(sink, manifest)


def croissant_of(path: str) -> dict[str, Any]:
    """Croissant of an output, or of the data that a model was trained on."""
    if "://" not in path and (Path(path) / "artifact.json").exists():
        return croissant.of_training_data(read_header(path))
    of_path(path)  # refuses anything else
    sink = Sink(path)
    manifest = sink.manifest() or {}
    name = Path(storage.mask(sink.uri)).name
    return croissant.of_output(
        name, manifest, schema_of(sink, manifest), (read_run(sink) or {}).get("finished")
    )


def of_model(header: Header) -> Card:
    """Of a trained model."""
    known = header.provenance
    training = {name: value for name, value in known.get("training", {}).items() if _is_plain(value)}
    job = known.get("job", {})
    return {
        "format": FORMAT,
        "card": "model",
        "name": known.get("name", NOT_STATED),
        "model": {
            "kind": header.kind,
            "modality": header.modality,
            "can": list(header.capabilities),
            "likelihood": LIKELIHOOD.get(header.bound, header.bound),
            "scores": list(header.score_names),
            "digest": header.digest,
            "settings": {name: value for name, value in header.settings.items() if value is not None},
        },
        "training": {"job": known.get("job_id", NOT_STATED), **training},
        "fit": {
            name: value
            for name, value in (job.get("fit") or known.get("fit") or {}).items()
            if value is not None
        },
        "training_data": _data(known.get("data"), header.schema),
        "rights": rights(known.get("rights"), header.modality),
        "intended_use": (known.get("rights") or {}).get("purpose", NOT_STATED),
        "privacy": _privacy(known),
        "limits": list(ALWAYS),
        "versions": known.get("versions", NOT_STATED),
    }


def of_training_data(header: Header) -> Card:
    """Of the data that a model was trained on, as far as the model knows it."""
    known = header.provenance
    return {
        "format": FORMAT,
        "card": "data",
        "name": (known.get("data") or {}).get("path", NOT_STATED),
        "synthetic": NOT_STATED,  # whether somebody else's data is, no program can tell
        "data": _data(known.get("data"), header.schema),
        "rights": rights(known.get("rights"), header.modality),
        "used_by": {"model": header.digest, "job": known.get("job_id", NOT_STATED)},
    }


def of_output(sink: Sink, manifest: Mapping[str, Any]) -> Card:
    """Of the rows that a job made."""
    provenance, run = manifest["provenance"], read_run(sink) or {}
    spec = provenance.get("spec", {})
    return {
        "format": FORMAT,
        "card": "data",
        "name": Path(storage.mask(sink.uri)).name,
        "synthetic": provenance.get("synthetic", False),
        "marked": provenance.get("marked", NOT_STATED),
        "made": {
            "job": provenance["job_id"],
            "verb": provenance["verb"],
            "run": run.get("run_id") or NOT_STATED,
            "finished": run.get("finished", NOT_STATED),
            "seed": spec.get("seed", NOT_STATED),
            "conditions": spec.get("where") or "none",
            "watermark": spec.get("watermark") or "none",
            "signed_by": run.get("certificate") or "nobody",
        },
        "model": dict(provenance["model"]),
        "training_data": provenance.get("training_data") or NOT_STATED,
        "privacy": _privacy(provenance),
        "data": {
            "rows": manifest["rows"],
            "files": len(manifest["shards"]),
            "bytes": manifest["bytes"],
            "manifest": manifest["hash"],
            "columns": _columns(schema_of(sink, manifest)),
        },
        "measured": {k: v for k, v in manifest["summary"].items() if isinstance(v, int | float)},
        "rights": rights(provenance.get("rights"), None),
        "limits": list(ALWAYS[:2]) if provenance.get("synthetic") else [],
    }


def rights(said: Any, modality: str | None) -> dict[str, str]:
    """What was said of the right to use the data; people's consent above all."""
    found = {name: (said or {}).get(name) or NOT_STATED for name in RIGHTS}
    if modality in PERSONAL and found["subjects"] == NOT_STATED:
        found["subjects"] = f"{NOT_STATED}: whether these records show or record people was not declared"
    return found


def schema_of(sink: Sink, manifest: Mapping[str, Any]) -> pa.Schema:
    """Of an output's rows; empty when it has no file."""
    for shard in manifest["shards"]:
        with sink.filesystem.open_input_file(sink.path(shard["file"])) as stream:
            return pq.read_schema(stream)
    return pa.schema([])


def write_with_model(directory: Path) -> list[str]:
    """Both cards as Markdown and JSON, and the Croissant of the training data, beside a model's files."""
    header = read_header(directory)
    written = []
    for name, card in ((MODEL, of_model(header)), (DATA, of_training_data(header))):
        (directory / f"{name}.json").write_text(as_json(card), encoding="utf-8")
        (directory / f"{name}.md").write_text(as_markdown(card), encoding="utf-8")
        written += [f"{name}.json", f"{name}.md"]
    found = croissant.of_training_data(header)
    (directory / CROISSANT).write_text(as_json(found), encoding="utf-8")
    return [*written, CROISSANT]


def as_json(card: Mapping[str, Any]) -> str:
    """Readable, with a stable order."""
    return json.dumps(card, indent=1, ensure_ascii=False, default=str) + "\n"


def as_markdown(card: Mapping[str, Any]) -> str:
    """For people: a heading for each part, a table for what has names."""
    title = "Model card" if card["card"] == "model" else "Data card"
    lines = [f"# {title}: {_text(card['name'])}", ""]
    flat = {name: value for name, value in card.items() if name not in ("format", "card", "name")}
    lines += _table({name: value for name, value in flat.items() if _is_plain(value)})
    for name, value in flat.items():
        if not _is_plain(value) and value:
            lines += [f"## {_title(name)}", "", *_part(value)]
    return "\n".join(lines).rstrip() + "\n"


def _part(value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield from (f"- {_text(one)}" for one in value)
        yield ""
        return
    columns = value.get("columns")
    yield from _table({name: inner for name, inner in value.items() if name != "columns"})
    if columns:
        yield from ["| column | type |", "|---|---|"]
        yield from (f"| {_text(column['name'])} | {_text(column['type'])} |" for column in columns)
        yield ""


def _table(facts: Mapping[str, Any]) -> list[str]:
    if not facts:
        return []
    rows = [f"| {_title(name)} | {_text(value)} |" for name, value in facts.items()]
    return ["| | |", "|---|---|", *rows, ""]


def _title(name: str) -> str:
    return _text(name.replace("_", " ")).capitalize()


def _text(value: Any) -> str:
    """Nothing of the data is taken for Markdown, HTML or an order to a terminal."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {inner}" for name, inner in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = html.escape(printable(str(value)), quote=False)
    for sign in "\\`*_[]|":
        text = text.replace(sign, f"\\{sign}")
    return text


def _data(found: Any, schema: pa.Schema) -> Any:
    if not isinstance(found, Mapping):
        return {"path": NOT_STATED, "columns": _columns(schema)}
    return {
        **{name: value for name, value in found.items() if value not in (None, [], {})},
        "columns": _columns(schema),
    }


def _columns(schema: pa.Schema) -> list[dict[str, str]]:
    return [{"name": field.name, "type": str(field.type)} for field in schema]


def _privacy(known: Mapping[str, Any]) -> Any:
    """What the training says of it; that nothing was promised, where nothing was."""
    found = known.get("privacy") or known.get("training", {}).get("privacy")
    return found or "no differential privacy; rare categories and outliers as the modality's settings say"


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)
