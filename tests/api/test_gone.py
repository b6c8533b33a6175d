"""A caller that disconnects while the gateway writes to it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from grpc._cython import cygrpc

from custommsg_server.api.call import Call
from custommsg_server.api.open_streams import OpenStreams


class Gone:
    """The context of such a call: gRPC fails the write, and cancels the task afterwards."""

    async def write(self, response: object) -> None:
        raise cygrpc.ExecuteBatchError("Failed to write.")

    async def send_initial_metadata(self, metadata: object) -> None:
        raise cygrpc.ExecuteBatchError("Failed to write.")

    def peer(self) -> str:
        return "ipv4:127.0.0.1:9"


CONTEXT = cast("Any", Gone())


async def test_a_write_to_a_caller_that_has_gone_is_no_bug_of_the_gateway() -> None:
    """The call ends as cancelled, and no error is logged."""
    call = Call("a/b", True, CONTEXT, 10.0, ())
    with pytest.raises(asyncio.CancelledError):
        await call.write(b"")
    with pytest.raises(asyncio.CancelledError):
        await call.begin()


async def test_a_drain_waits_for_initial_metadata_that_is_being_sent() -> None:
    """gRPC could not send the reason meanwhile."""
    sent = asyncio.Event()

    class Sending(Gone):
        async def send_initial_metadata(self, metadata: object) -> None:
            await sent.wait()

    beginning = asyncio.create_task(Call("a/b", True, cast("Any", Sending()), 10.0, ()).begin())
    await asyncio.sleep(0)
    beginning.cancel("the gateway stops")
    await asyncio.sleep(0)
    assert not beginning.done()
    sent.set()
    with pytest.raises(asyncio.CancelledError, match="the gateway stops"):
        await beginning


async def test_a_health_watch_of_a_client_that_has_gone_is_no_bug_either() -> None:
    """Whether its handler yields responses or writes them."""

    async def yields(request: object, context: object) -> Any:
        yield b""

    async def writes(request: object, context: Any) -> None:
        await context.write(b"")

    for handler in (yields, writes):
        streams = OpenStreams()
        with pytest.raises(asyncio.CancelledError):
            await streams.bounded(handler)(b"", CONTEXT)
        assert streams.count == 0
