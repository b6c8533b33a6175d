"""What a refused call leaves behind: nothing that waits for the garbage collector, which counts objects, not bytes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress
from typing import Any, cast

import grpc
import pytest

from custommsg_server.access.access import Access
from custommsg_server.access.accounts import Accounts, CallerLimits
from custommsg_server.api.calls import Calls
from custommsg_server.core.limits import Rate
from custommsg_server.domain.errors import Reason, RelayError


class Request:
    """A request; it may be large."""


class Context:
    """gRPC's context: it keeps the error with which a call was aborted."""

    async def abort(self, *_: object, **__: object) -> None:
        self.error = grpc.aio.AbortError()
        raise self.error

    def peer(self) -> str:
        return "ipv4:127.0.0.1:9"

    def time_remaining(self) -> float | None:
        return None


@pytest.mark.parametrize("kind", ["_unary", "_stream"])
@pytest.mark.parametrize("error", [RelayError(Reason.INVALID_FILTER, "No."), ValueError("A bug.")])
async def test_the_request_of_a_call_that_failed_is_freed_at_once(kind: str, error: Exception) -> None:
    """15 filters of 4 MB, refused one after the other, once took 900 MB."""
    accounts = Accounts(CallerLimits(0, Rate(0, 0, 1)))
    calls = Calls(Access(None, cast("Any", None), accounts), timeout=10)

    async def inner(request: Request, call: object) -> None:
        raise type(error)(*error.args) if isinstance(error, ValueError) else RelayError(error.reason, "No.")

    request, context = Request(), Context()
    freed = weakref.ref(request)
    gc.disable()
    try:
        # A task, as in gRPC: its context outlives the call by what still refers to it.
        task = asyncio.ensure_future(getattr(calls, kind)(inner, "a/b")(request, context))
        del request
        with suppress(grpc.aio.AbortError):
            await task
        del task
        assert freed() is None
    finally:
        gc.enable()
