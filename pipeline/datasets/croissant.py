"""Croissant metadata of a Parquet export: every file with its SHA-256, every column, the classes, the licence, and that
it is synthetic.

JSON-LD in the vocabulary of Croissant 1.1 and its RAI extension, validated by mlcroissant, which also reads the record
sets `samples` (the shards beside the file) and `classes` (in the file itself). Nothing in it depends on the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.datasets.dataset_card import TAGS, Card
from pipeline.datasets.manifest import FileRecord
from pipeline.datasets.parquet_columns import Column, columns

SHARDS, SAMPLES, CLASSES = "parquet-shards", "samples", "classes"
PARQUET = "application/x-parquet"
TYPES = {
    "string": "sc:Text",
    "binary": "sc:Text",  # for which mlcroissant gives bytes
    "bool": "sc:Boolean",
    "int64": "cr:Int64",
    "float64": "cr:Float64",
    "image": "sc:ImageObject",
}
_OWN = """arrayShape citeAs column containedIn equivalentProperty extract field fileProperty fileObject fileSet format
    includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace
    samplingRate separator source subField transform"""  # Croissant's words, in the order of its standard context
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "description": {"@container": "@language"},
    "name": {"@container": "@language"},
    **{word: f"cr:{word}" for word in _OWN.split()},
}


def croissant(card: Card, files: Sequence[FileRecord]) -> dict[str, Any]:
    """The metadata of the Parquet `files`, as JSON-LD. Raises mlcroissant's ValidationError where it objects."""
    import mlcroissant

    digest = card.manifest_digest
    table: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": card.name,
        "description": card.summary,
        "keywords": list(TAGS),
        "license": card.licence,
        "version": "1.0.0",
        "citeAs": f"@misc{{occfactory_{digest[:12]}, title={{{card.name}}}, note={{SHA-256 {digest}}}}}",
        "rai:hasSyntheticData": True,
        "rai:dataCollection": card.synthetic,
        "distribution": [_shards(), *(_file(record) for record in files)],
        "recordSet": [_samples(card), _classes(card)],
    }
    if card.published:
        table["datePublished"] = card.published
    mlcroissant.Metadata.from_json(mlcroissant.Context(), table)
    return table


def _shards() -> dict[str, Any]:
    """All shards: what the samples are read from."""
    return {"@type": "cr:FileSet", "@id": SHARDS, "encodingFormat": PARQUET, "includes": "data/*.parquet"}


def _file(record: FileRecord) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": record.path,
        "name": record.path,
        "contentUrl": record.path,
        "contentSize": f"{record.bytes} B",
        "encodingFormat": PARQUET,
        "sha256": record.sha256,
    }


def _samples(card: Card) -> dict[str, Any]:
    splits = "|".join(card.splits)
    split = {
        **_described("split", "by which file it lies in", "sc:Text"),
        "source": {
            "fileSet": {"@id": SHARDS},
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": rf"^data/({splits})-.+\.parquet$"},
        },
    }
    fields = [split, *(_field(column) for column in columns(card.cameras))]
    return {
        "@type": "cr:RecordSet",
        "@id": SAMPLES,
        "name": SAMPLES,
        "key": {"@id": f"{SAMPLES}/name"},
        "field": fields,
    }


def _field(column: Column) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": SHARDS}, "extract": {"column": column.name}}
    if column.kind == "image":
        source["transform"] = {"jsonPath": "bytes"}
    shape = {"isArray": True, "arrayShape": "-1"} if column.is_list else {}
    return {**_described(column.name, column.holds, TYPES[column.item]), **shape, "source": source}


def _described(name: str, holds: str, kind: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": f"{SAMPLES}/{name}", "name": name, "description": holds, "dataType": kind}


def _classes(card: Card) -> dict[str, Any]:
    """Class ids, names, valid voxels, and samples with the class."""
    kinds = {"id": "sc:Integer", "name": "sc:Text", "voxels": "sc:Integer", "samples": "sc:Integer"}
    rows = [(number, name, voxels, seen) for number, (name, voxels, _, seen) in enumerate(card.classes)]
    return {
        "@type": "cr:RecordSet",
        "@id": CLASSES,
        "name": CLASSES,
        "key": {"@id": f"{CLASSES}/id"},
        "field": [
            {"@type": "cr:Field", "@id": f"{CLASSES}/{key}", "name": key, "dataType": kind}
            for key, kind in kinds.items()
        ],
        "data": [{f"{CLASSES}/{key}": value for key, value in zip(kinds, row, strict=True)} for row in rows],
    }
