"""What a job accepts at each place: its settings classes walked by key, a union narrowed by the value's `kind`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Model = type[BaseModel]
TAGS = ("kind", "job")


def models_in(annotation: Any) -> tuple[Model, ...]:
    """Every settings class inside an annotation: of a union all members, of a list its items."""
    if isinstance(annotation, type) and not get_args(annotation):
        return (annotation,) if issubclass(annotation, BaseModel) else ()
    found = (model for part in get_args(annotation) for model in models_in(part))
    return tuple(dict.fromkeys(found))


def keys(model: Model) -> dict[str, FieldInfo]:
    """The keys of a mapping as people write them (the alias where a field has one), sorted."""
    return dict(sorted((field.alias or name, field) for name, field in model.model_fields.items()))


def tag(model: Model) -> str | None:
    """The word that chooses this class in a union: `parquet` of `kind: parquet`."""
    for name in TAGS:
        if name in model.model_fields:
            words = get_args(model.model_fields[name].annotation)
            return str(words[0]) if words else None
    return None


def tags(models: tuple[Model, ...]) -> list[str]:
    """The accepted kinds, sorted."""
    return sorted(word for word in map(tag, models) if word)


def narrow(models: tuple[Model, ...], value: Any) -> tuple[Model, ...]:
    """The one class that the value's `kind` chooses; all of them when it says nothing we know."""
    said = [value[name] for name in TAGS if name in value] if isinstance(value, dict) else []
    chosen = tuple(model for model in models if said and tag(model) == said[0])
    return chosen or models


def holds(models: tuple[Model, ...], path: tuple[str, ...], value: Any) -> bool:
    """Whether a value of these classes has a place for this path of keys."""
    for model in narrow(models, value):
        field = keys(model).get(path[0])
        if field is None:
            continue
        inner = models_in(field.annotation)
        if len(path) == 1 or (not inner and is_free(field)):
            return True
        if inner and holds(inner, path[1:], child(value, path[0])):
            return True
    return False


def section(models: tuple[Model, ...], path: tuple[str, ...], value: Any) -> tuple[Model, ...]:
    """The settings classes of the section at a path; none where a plain value stands."""
    for step in path:
        fields = [field for model in narrow(models, value) if (field := keys(model).get(step))]
        models = tuple(found for field in fields for found in models_in(field.annotation))
        value = child(value, step)
    return models


def is_free(field: FieldInfo) -> bool:
    """A mapping whose keys are the user's own, such as `where`."""
    return any(get_origin(part) is dict for part in (field.annotation, *get_args(field.annotation)))


def child(value: Any, key: str) -> Any:
    """What stands under a key, None where there is nothing."""
    return value.get(key) if isinstance(value, dict) else None


def dotted(models: tuple[Model, ...], value: Any = None, prefix: str = "") -> Iterator[str]:
    """Every path that can be set: `fit`, `fit.seed`, `source.filter` ..."""
    for model in narrow(models, value):
        for key, field in keys(model).items():
            yield prefix + key
            yield from dotted(models_in(field.annotation), child(value, key), f"{prefix}{key}.")
