"""Errors of an SQLite inbox, with advice on what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from custommsg_server.inbox.port import InboxError
from custommsg_server.storage.errors import EXPECTED, advice_on
from custommsg_server.storage.migration import NewerVersionError


@contextmanager
def inbox_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file at `path` into InboxErrors."""
    try:
        yield
    except NewerVersionError as error:
        raise InboxError(f"inbox {path}: {error}, or move the file away") from None
    except EXPECTED as error:
        raise InboxError(f"inbox {path}: {advice_on(error, 'inbox')}") from error
