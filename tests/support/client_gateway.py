"""A gateway that answers by a script. The tests of the client talk to it over a real connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1.custommsg_pb2_grpc import CustomMsgServiceServicer, add_CustomMsgServiceServicer_to_server

Answer = Callable[[Any, Any], Awaitable[Any]]
"""How one call is answered: (request, context) -> response, as in a servicer."""

Stream = Callable[[Any, Any], AsyncIterator[Any]]
"""How one subscription is answered, as in a servicer."""

SendStream = Callable[[Any], Awaitable[None]]
"""How one SendCustomMsgStream is answered: it reads from the context and writes to it."""

PEER = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
NODE = bytes.fromhex("02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5")
"""Our node, behind the gateway."""
QUEUED = "Message sent to connectd for delivery"


class ScriptedGateway(CustomMsgServiceServicer):
    """Answers each call with the next line of its script, and keeps the requests."""

    def __init__(self) -> None:
        self.script: deque[Answer] = deque()
        self.answers: dict[type, Answer] = {}
        """What to answer, by the request's type, when the script has ended."""
        self.stream: Stream | None = None
        self.send_stream: SendStream | None = None
        self.ack: Answer | None = None
        self.requests: list[Any] = []
        self.time_left: list[float] = []
        self.asked = asyncio.Event()
        self.address = ""
        self.server: Any = None

    async def SendCustomMsg(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def ListPeers(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def GetInfo(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def SubscribeCustomMsgs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        assert self.stream is not None, "this gateway has no inbox"
        async for response in self.stream(request, context):
            yield response

    async def SendCustomMsgStream(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        assert self.send_stream is not None, "this gateway takes no streams"
        await self.send_stream(context)

    async def ListEvents(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def AckCustomMsgs(self, request: Any, context: Any) -> Any:
        if self.ack is not None:
            return await self.ack(request, context)
        return await self._answer(request, context)

    async def ListConsumers(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def DeleteConsumer(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def GetInbox(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def _answer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.time_left.append(context.time_remaining())
        self.asked.set()
        answer = self.script.popleft() if self.script else self.answers[type(request)]
        return await answer(request, context)


@asynccontextmanager
async def run(
    address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[ScriptedGateway]:
    """Run a scripted gateway; its `address` says where."""
    gateway = ScriptedGateway()
    gateway.server = grpc.aio.server()
    add_CustomMsgServiceServicer_to_server(gateway, gateway.server)
    port = (
        gateway.server.add_secure_port(address, credentials)
        if credentials is not None
        else gateway.server.add_insecure_port(address)
    )
    gateway.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    await gateway.server.start()
    try:
        yield gateway
    finally:
        await gateway.server.stop(None)


def reply(response: Any) -> Answer:
    """Answer with this response."""

    async def answer(request: Any, context: Any) -> Any:
        return response

    return answer


async def queue(request: Any, context: Any) -> pb.SendCustomMsgResponse:
    """Answer as the gateway does when the node has taken the message."""
    return pb.SendCustomMsgResponse(status=QUEUED, type=int.from_bytes(request.message.msg[:2], "big"))


async def hang(request: Any, context: Any) -> Any:
    """Never answer."""
    await asyncio.Event().wait()


def refuse(code: grpc.StatusCode, message: str = "No.", raw_details: bytes | None = None) -> Answer:
    """Fail with this code, and with these bytes as the status details."""

    async def answer(request: Any, context: Any) -> Any:
        trailing = () if raw_details is None else (("grpc-status-details-bin", raw_details),)
        await context.abort(code, message, trailing)

    return answer


def refuse_because(code: grpc.StatusCode, reason: str, message: str = "No.", **details: Any) -> Answer:
    """Fail as the gateway does, with a reason; `details` are those of `status_details`."""
    return refuse(code, message, status_details(code, reason, message, **details))


def status_details(
    code: grpc.StatusCode,
    reason: str,
    message: str = "No.",
    *,
    domain: str = "custommsg",
    metadata: Mapping[str, str] | None = None,
    retry_after: float | None = None,
    violations: Sequence[tuple[str, str]] = (),
) -> bytes:
    """Make the bytes of a google.rpc.Status, as the contract describes it."""
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata))
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(retry_after * 1e9))
        status.details.add().Pack(retry)
    if violations:
        request = error_details_pb2.BadRequest()
        for field, description in violations:
            request.field_violations.add(field=field, description=description)
        status.details.add().Pack(request)
    raw: bytes = status.SerializeToString()
    return raw
