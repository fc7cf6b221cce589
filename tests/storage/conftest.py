"""Fixtures of the storage tests."""

from __future__ import annotations

import pytest

from core.db.connect import Database
from tests.storage.spine import Spine


@pytest.fixture
async def spine(database: Database) -> Spine:
    """The use cases on a fresh database, with an inbox of a pushed channel."""
    return await Spine.build(database)
