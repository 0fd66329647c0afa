"""Data sets described in Croissant 1.0 (MLCommons 2024, JSON-LD over schema.org), for catalogues that read it

`http://mlcommons.org/croissant/1.0`. Every part of an output is a file with its sha256.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from genai_core.artifact import Header
from pipelines.provenance.rights import NOT_STATED

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
PARQUET = "application/x-parquet"
TYPES = (
    (pa.types.is_boolean, "sc:Boolean"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
    (pa.types.is_decimal, "sc:Float"),
    (pa.types.is_timestamp, "sc:DateTime"),
    (pa.types.is_date, "sc:Date"),
    (pa.types.is_time, "sc:Time"),
)


def of_output(
    name: str, manifest: Mapping[str, Any], schema: pa.Schema, finished: str | None
) -> dict[str, Any]:
    """Of an output, every part with its hash."""
    provenance = manifest["provenance"]
    parts = [_file(shard) for shard in manifest["shards"]]
    made = "Synthetic rows" if provenance.get("synthetic") else "Rows"
    description = (
        f"{made} that the job {provenance['job_id']} made with the model {provenance['model']['digest']}."
    )
    listed: dict[str, Any] = {
        "@type": "cr:FileSet",
        "@id": "parts",
        "name": "parts",
        "encodingFormat": PARQUET,
    }
    listed |= {"includes": "data/*.parquet"}
    return {
        **_head(name, description, provenance.get("rights"), finished),
        "version": "1.0.0",
        "distribution": [*parts, listed],
        "recordSet": [_records(schema, {"fileSet": {"@id": "parts"}})],
    }


def of_training_data(header: Header) -> dict[str, Any]:
    """Of the data that a model was trained on: its columns, and the digest of the source as it was then."""
    known = header.provenance
    data = known.get("data") or {}
    description = (
        f"Training data of the model {header.digest}: {data.get('rows', NOT_STATED)} rows, "
        f"source {data.get('path') or NOT_STATED}, digest {data.get('digest') or NOT_STATED}."
    )
    source = {
        "@type": "cr:FileSet",
        "@id": "source",
        "name": "source",
        "encodingFormat": PARQUET,
        "includes": "*",
    }
    name = f"training-data-of-{known.get('name', 'a-model')}"
    return {
        **_head(name, description, known.get("rights"), None),
        "distribution": [source],
        "recordSet": [_records(header.schema, {"fileSet": {"@id": "source"}})],
    }


def _head(name: str, description: str, rights: Any, finished: str | None) -> dict[str, Any]:
    said = rights or {}
    head = {"@context": CONTEXT, "@type": "sc:Dataset", "name": name, "conformsTo": f"{CONTEXT['cr']}1.0"}
    head["description"] = description
    if said.get("licence"):
        head["license"] = said["licence"]
    if said.get("contact"):
        head["creator"] = {"@type": "sc:Organization", "name": said["contact"]}
    return head | ({"datePublished": finished} if finished else {})


def _file(shard: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"part-{shard['id']:05d}",
        "name": f"part-{shard['id']:05d}",
        "contentUrl": shard["file"],
        "contentSize": f"{shard['bytes']} B",
        "encodingFormat": PARQUET,
        "sha256": shard["sha256"],
    }


def _records(schema: pa.Schema, source: Mapping[str, Any]) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"rows/{field.name}",
            "name": field.name,
            "dataType": _type(field.type),
            "source": {**source, "extract": {"column": field.name}},
        }
        for field in schema
    ]
    return {"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}


def _type(kind: pa.DataType) -> str:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return next((name for fits, name in TYPES if fits(plain)), "sc:Text")
