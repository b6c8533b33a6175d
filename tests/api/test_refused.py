"""Refused calls leave no memory to the garbage collector, which counts objects, not bytes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from custommsg_server.access.access import Access
from custommsg_server.access.accounts import Accounts, CallerLimits
from custommsg_server.api.calls import Calls
from custommsg_server.api.status import CODES, DETAILS_KEY
from custommsg_server.core.limits import Rate
from custommsg_server.domain.errors import Reason, RelayError
from support.gateways import gateway
from support.standin import StandIn


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
        task = asyncio.ensure_future(
            getattr(calls, kind)(inner, "a/b", lambda request: request)(request, context)
        )
        del request
        with suppress(grpc.aio.AbortError):
            await task
        del task
        assert freed() is None
    finally:
        gc.enable()


METHODS = [
    ("unary_unary", "SendCustomMsg"),
    ("unary_stream", "SubscribeCustomMsgs"),
    ("stream_stream", "SendCustomMsgStream"),
]


@pytest.mark.parametrize(("kind", "method"), METHODS)
async def test_bytes_that_are_no_request_are_the_callers_fault(
    node: StandIn, caplog: pytest.LogCaptureFixture, kind: str, method: str
) -> None:
    """The caller gets a reason, and the log has no bug. Callers without a credential are refused before."""
    for insecure, expected in ((True, Reason.INVALID_MESSAGE), (False, Reason.NO_CREDENTIAL)):
        async with (
            gateway(node.rpc_file, receive=False, insecure=insecure) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            send = getattr(channel, kind)(f"/custommsg.v1.CustomMsgService/{method}", bytes, bytes)
            call = send([b"\xff"] if kind == "stream_stream" else b"\xff", timeout=10)
            assert await call.code() is CODES[expected]
            info, details = error_details_pb2.ErrorInfo(), dict(await call.trailing_metadata())[DETAILS_KEY]
            assert status_pb2.Status.FromString(details).details[0].Unpack(info)
            assert info.reason == expected.name
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
