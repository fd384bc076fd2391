"""Fields that configs got after they were in use."""

from __future__ import annotations

from typing import Any

from pydantic import Field


def unwritten(default: Any, **limits: Any) -> Any:
    """A field that a dump leaves out while it has its default: configs from before it keep their digests.

    limits: as of pydantic's Field. What a dump leaves out, `flows.changes.table_of` puts in.
    """
    return Field(default, exclude_if=lambda value: value == default, **limits)
