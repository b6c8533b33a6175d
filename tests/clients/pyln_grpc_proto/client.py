"""pyln-grpc-proto, the stubs that Core Lightning publishes for Python: `client.py HOST:PORT`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from pyln.grpc import NodeStub, SendcustommsgRequest
from pyln.grpc import node_pb2 as pb

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


def outcome(make: Any) -> Any:
    """Wrap a call, so that it returns how it failed."""

    def call(**given: Any) -> dict[str, Any]:
        try:
            return {"text": make(**given)}
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata())["grpc-status-details-bin"]
            return {"code": error.code().name, "text": error.details(), "details": details.hex()}

    return call


def info() -> str:
    """Ask who the node is."""
    found = NodeStub(CHANNEL).Getinfo(pb.GetinfoRequest())
    return f"{found.alias} {found.id.hex()} {found.num_peers}"


def peers() -> str:
    """Ask for the peers."""
    listed = NodeStub(CHANNEL).ListPeers(pb.ListpeersRequest()).peers
    return " ".join(f"{one.id.hex()} {one.netaddr[0]}" for one in listed if one.connected)


def connect(peer: str, host: str) -> str:
    """Connect to a peer."""
    found = NodeStub(CHANNEL).ConnectPeer(pb.ConnectRequest(id=f"{peer}@{host}"))
    direction = pb.ConnectResponse.ConnectDirection.Name(found.direction)
    return f"{found.id.hex()} {direction} {found.address.address}"


def disconnect(peer: str) -> str:
    """Disconnect from a peer."""
    NodeStub(CHANNEL).Disconnect(pb.DisconnectRequest(id=bytes.fromhex(peer)))
    return ""


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


calls = {name: outcome(make) for name, make in (("info", info), ("peers", peers), ("connect", connect))}
driver.serve({"send": send, "subscribe": subscribe, "disconnect": outcome(disconnect), **calls})
