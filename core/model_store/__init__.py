"""The model registry: folders become versions, versions are promoted, fetched, taken back; no ML.

The bytes of a version lie in the database by their hash (larger files in a folder that all machines
see), so that every worker can fetch what serves; its own copy is a cache that is verified whenever
it is read.
"""

from __future__ import annotations

from core.db.models import ModelVersion, Promotion, StoredFile
from core.model_store.fetching import Store, damaged, damaged_versions
from core.model_store.promoting import (
    SHIPPED,
    Overview,
    effective,
    find,
    history,
    note,
    overview,
    promote,
    rollback,
    serving,
    target,
    versions,
)
from core.model_store.registering import UNKNOWN_DATA, read_card, register
from core.types import ModelKind

__all__ = [
    "SHIPPED",
    "UNKNOWN_DATA",
    "ModelKind",
    "ModelVersion",
    "Overview",
    "Promotion",
    "Store",
    "StoredFile",
    "damaged",
    "damaged_versions",
    "effective",
    "find",
    "history",
    "note",
    "overview",
    "promote",
    "read_card",
    "register",
    "rollback",
    "serving",
    "target",
    "versions",
]
