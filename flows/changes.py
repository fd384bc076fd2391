"""Changes of configs by "path=value", as the commands' --set gives them.

A dump leaves out fields that came later while they have their default, lest digests of older recipes change; the tables
here hold them all.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from pipeline.scene.errors import InputError


def table_of(config: BaseModel) -> dict[str, Any]:
    """A config as a table for JSON, with what its dump leaves out while it has its default."""
    table = config.model_dump(mode="json")
    _complete(table, config)
    return table


def _complete(table: dict[str, Any], config: BaseModel) -> None:
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if field.exclude_if and name not in table:
            table[name] = table_of(value) if isinstance(value, BaseModel) else value
        elif isinstance(value, BaseModel) and name in table:
            _complete(table[name], value)


def apply_changes(table: dict[str, Any], changes: tuple[str, ...]) -> None:
    """Make "path=value" changes in a config's table, values in JSON or as plain words. Raises InputError."""
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise InputError("--set", "FIELD=VALUE", repr(change))
        _assign(table, path, _parse(value))


def _assign(table: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        table = table.get(parent) if isinstance(table, dict) else None  # type: ignore[assignment]
    if not isinstance(table, dict) or last not in table:
        raise InputError("--set", "a field of the recipe", repr(path), "see `occfactory recipes NAME`")
    table[last] = value


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
