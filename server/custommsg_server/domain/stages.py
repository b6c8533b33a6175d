"""The stages of a call, "validate", "rune" and "node": marked where they happen, for whoever traces calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Final

Marker = Callable[[str], AbstractContextManager[Any]]

marker: Final[ContextVar[Marker | None]] = ContextVar("marker", default=None)
"""Marks the stages of the current task's call; None: nobody wants to know."""
_NOBODY: Final = nullcontext()


def stage(name: str) -> AbstractContextManager[Any]:
    """Mark a stage of the current call, for as long as the context lasts."""
    mark = marker.get()
    return _NOBODY if mark is None else mark(name)
