"""pyln-grpc-proto, the stubs that Core Lightning publishes for Python: `client.py HOST:PORT`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from pyln.grpc import NodeStub, SendcustommsgRequest

sys.path.insert(0, str(Path(__file__).parent.parent))
import driver

CHANNEL = grpc.insecure_channel(sys.argv[1])


def send(peer: str, message: str) -> dict[str, Any] | None:
    """Send a message; return how it failed, if it did."""
    request = SendcustommsgRequest(node_id=bytes.fromhex(peer), msg=bytes.fromhex(message))
    try:
        NodeStub(CHANNEL).SendCustomMsg(request)
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        return {"code": error.code().name, "text": error.details(), "details": details.hex()}
    return None


def subscribe() -> None:
    """Forward what arrives.

    These stubs are older than SubscribeCustomMsg. Its messages have the layout of those for sending: two fields of
    bytes, the peer and the message.
    """
    method = CHANNEL.unary_stream(
        "/cln.Node/SubscribeCustomMsg",
        request_serializer=lambda request: b"",
        response_deserializer=SendcustommsgRequest.FromString,
    )
    stream: Iterator[Any] = method(None)
    driver.forward((message.node_id, message.msg) for message in stream)


driver.serve({"send": send, "subscribe": subscribe})
