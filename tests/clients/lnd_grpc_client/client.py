"""lnd-grpc-client and lndgrpc, LND clients for Python: `client.py HOST:PORT CERTIFICATE MACAROON_FILE`.

They are forks of each other: a module `lndgrpc` with the same methods. lndgrpc's stubs are older than custom messages,
and lnd-grpc-client has them only in its stubs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# The stubs of lndgrpc are of 2019; protobuf's implementation in C refuses them.
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"

import grpc
from lndgrpc import LNDClient
from lndgrpc.common import ln

sys.path.insert(0, str(Path(__file__).parent.parent))
import driver

ADDRESS, CERTIFICATE, MACAROON = sys.argv[1:]
CLIENT = LNDClient(ADDRESS, cert_filepath=CERTIFICATE, macaroon_filepath=MACAROON)


def outcome(make: Any) -> Any:
    """Wrap a call, so that it returns how it failed."""

    def call(**given: Any) -> dict[str, Any]:
        try:
            return {"text": str(make(**given) or "")}
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
            return {"code": error.code().name, "text": error.details(), "details": details.hex()}

    return call


def method(name: str, *given: str) -> Any:
    """Call a method of the client without its decorator, which prints errors and returns None instead."""
    return getattr(LNDClient, name).__wrapped__(CLIENT, *given)


def send(peer: str, message: str) -> None:
    """Send a message."""
    raw = bytes.fromhex(message)
    request = ln.SendCustomMessageRequest(
        peer=bytes.fromhex(peer), type=int.from_bytes(raw[:2], "big"), data=raw[2:]
    )
    CLIENT._ln_stub.SendCustomMessage(request)


def subscribe() -> None:
    """Forward what arrives."""
    stream = CLIENT._ln_stub.SubscribeCustomMessages(ln.SubscribeCustomMessagesRequest())
    driver.forward((one.peer, one.type.to_bytes(2, "big") + one.data) for one in stream)


def events() -> None:
    """Forward connects and disconnects."""
    stream = CLIENT._ln_stub.SubscribePeerEvents(ln.PeerEventSubscription())
    driver.forward((bytes.fromhex(one.pub_key), b"\x00" if one.type else b"\x01") for one in stream)


def info() -> str:
    """Ask who the node is."""
    found = method("get_info")
    return f"{found.alias} {found.identity_pubkey} {found.num_peers}"


def node(peer: str) -> str:
    """Ask about a node."""
    found = method("get_node_info", peer).node
    return f"{found.alias} {found.addresses[0].addr}"


calls: dict[str, Any] = {
    "send": send,
    "subscribe": subscribe,
    "events": events,
    "info": info,
    "peers": lambda: " ".join(peer.pub_key for peer in method("list_peers").peers),
    "connect": lambda peer, host: method("connect_peer", peer, host),
    "disconnect": lambda peer: method("disconnect_peer", peer),
    "node": node,
    "version": lambda: method("get_version").version,
    "state": lambda: method("get_state").state,
    "channels": lambda: method("list_channels"),
}
driver.serve({name: outcome(make) for name, make in calls.items()})
