"""The engines of the inbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from support.engines import Engine, ForgetfulSqliteEngine, MemoryEngine, SqliteEngine

ENGINES: list[type[Engine]] = [SqliteEngine, ForgetfulSqliteEngine, MemoryEngine]


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """Return an engine with an inbox that is not open yet."""
    async with AsyncExitStack() as stack:
        yield request.param(tmp_path, stack)
