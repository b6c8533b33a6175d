"""Listener x credential x RPC: each call ends with the documented code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from custommsg_server.access import macaroon
from support import nodes
from support.every_rpc import Certificates, Metadata, Rpc, rpcs, until_serving
from support.gateways import gateway

from .conftest import MakeRune

NONE = ("UNAUTHENTICATED", "NO_CREDENTIAL")
NOT = ("PERMISSION_DENIED", "NOT_PERMITTED")
NO_HANDSHAKE = ("UNAVAILABLE", "")
MESSAGES = {
    "SendCustomMsg",
    "SendCustomMsgStream",
    "SubscribeCustomMsgs",
    "SendCustomMessage",
    "SubscribeCustomMessages",
    "SubscribeCustomMsg",
    "StreamCustommsg",
    "SubscribePeerEvents",
}
"""The methods that a rune for one type of messages permits."""
BY_ENTRY = {"GetOutboxEntry", "CancelOutboxEntry", "ListOutbox"}
"""Here a rune for one type or one peer is judged by the entry that is found (test_outbox)."""


@dataclass(frozen=True)
class Listener:
    """A listener, and the credentials that it accepts."""

    name: str
    settings: dict[str, Any]
    tls: bool = False
    clients: bool = False

    def lets_in(self, rune: str, certificate: str) -> bool:
        """Whether these credentials are enough, if they are valid."""
        require = self.settings["require"]
        if require == "rune":
            return rune != "none"
        return certificate == "right" or (require != "client-cert" and rune != "none")


LISTENERS = [
    Listener("unix", {"require": "rune"}),
    Listener("loopback", {"require": "rune"}),
    Listener("loopback-either", {"require": "rune-or-client-cert"}),
    Listener("tls", {"require": "rune"}, tls=True),
    Listener("mtls", {"require": "client-cert"}, tls=True, clients=True),
    Listener("mtls-rune", {"require": "rune"}, tls=True, clients=True),
    Listener("mtls-either", {"require": "rune-or-client-cert"}, tls=True, clients=True),
]
RUNES = [
    "none",
    "malformed",
    "wrong",
    "expired",
    "blacklisted",
    "right",
    "narrow",
    "macaroon",
    "foreign-macaroon",
    "other-type",
    "other-peer",
]
NARROW = [["method=sendcustommsg", "method=subscribecustommsg"], ["pnamemsg^9419"]]


async def shown(kind: str, make_rune: MakeRune, node: nodes.Node) -> Metadata:
    """Return the metadata with a rune of this kind."""
    match kind:
        case "none":
            return ()
        case "malformed":
            return (("rune", "no rune, certainly"),)
        case "wrong":
            return (("rune", "AAAA" + (await make_rune())[4:]),)
        case "expired":
            return (("rune", await make_rune(["time<1000"])),)
        case "blacklisted":
            rune = await make_rune()
            await node.call("blacklistrune", start=0, end=1000)
            return (("rune", rune),)
        case "narrow":
            # As LND's clients show it: the other key for the same thing.
            return (("macaroon", (await make_rune(*NARROW)).encode().hex()),)
        case "macaroon":
            return (("macaroon", macaroon.make(await make_rune()).hex()),)
        case "foreign-macaroon":
            made = macaroon.make(await make_rune())
            return (("macaroon", (made[:-1] + bytes((made[-1] ^ 1,))).hex()),)
        case "other-type":
            return (("rune", await make_rune(["pnamemsg^7779"])),)
        case "other-peer":
            return (("rune", await make_rune(["pnamenode_id=02" + "11" * 32])),)
        case _:
            return (("rune", await make_rune()),)


def permitted(rpc: Rpc) -> tuple[str, str]:
    """Return the outcome of an RPC with all permissions."""
    match rpc.method.name:
        case "AckCustomMsgs":
            return "INVALID_ARGUMENT", "INVALID_POSITION"
        case "DeleteConsumer":
            return "NOT_FOUND", "CONSUMER_UNKNOWN"
        case "GetOutboxEntry" | "CancelOutboxEntry":
            return "NOT_FOUND", "ENTRY_UNKNOWN"
        case "Disconnect" | "DisconnectPeer" | "GetNodeInfo":
            return "NOT_FOUND", "PEER_UNKNOWN"
        case _:
            return "OK", ""


def expected(listener: Listener, rune: str, certificate: str, rpc: Rpc) -> tuple[str, str]:
    """Return the documented outcome of a call."""
    if listener.clients and certificate != "right":
        return NO_HANDSHAKE
    if rpc.method.containing_service.name == "State":
        return "OK", ""  # as in LND
    if rune in ("malformed", "wrong", "blacklisted", "foreign-macaroon") or not listener.lets_in(
        rune, certificate
    ):
        return NONE
    if rune == "expired":
        return NOT
    if rune == "narrow":
        return permitted(rpc) if rpc.method.name in MESSAGES else NOT
    if rune in ("other-type", "other-peer"):
        if rpc.method.name in BY_ENTRY:
            return permitted(rpc)
        # A subscription to everything begins: each of its events is judged (test_subscribe).
        wide = rpc.method.server_streaming and rpc.method.name in MESSAGES - {
            "SubscribeCustomMsgs",
            "SendCustomMsgStream",
        }
        return permitted(rpc) if wide else NOT
    return permitted(rpc)


@pytest.mark.parametrize("certificate", ["none", "wrong", "expired", "right"])
@pytest.mark.parametrize("listener", LISTENERS, ids=lambda listener: listener.name)
async def test_each_call_ends_as_documented(
    listener: Listener,
    certificate: str,
    embedded: nodes.Node,
    make_rune: MakeRune,
    certificates: Certificates,
    short_path: Path,
) -> None:
    """Every RPC of every service with every kind of rune: its own outcome, or the documented error."""
    if certificate != "none" and not listener.tls:
        pytest.skip("nothing can be shown there")
    settings = dict(listener.settings)
    if listener.tls:
        settings |= certificates.settings(listener.clients)
    if listener.name == "unix":
        settings["listen"] = (f"unix:{short_path}/gateway.sock",)
    async with gateway(embedded.rpc_file, insecure=False, **settings) as address:
        channel = (
            grpc.aio.secure_channel(address, certificates.client(certificate))
            if listener.tls
            else grpc.aio.insecure_channel(address)
        )
        async with channel:
            if not listener.clients or certificate == "right":
                await until_serving(channel)
            runes = RUNES if not listener.clients or certificate == "right" else ["none", "right"]
            for rune in sorted(runes, key="blacklisted".__eq__):
                metadata = await shown(rune, make_rune, embedded)
                for rpc in rpcs(embedded.peer.id):
                    outcome = await rpc.call(channel, metadata)
                    assert outcome == expected(listener, rune, certificate, rpc), (rune, rpc.path)
            if not listener.clients or certificate == "right":
                await probes_pass(channel)


async def probes_pass(channel: grpc.aio.Channel) -> None:
    """Health checks and reflection need no credential."""
    health = health_pb2_grpc.HealthStub(channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = reflection.ServerReflectionInfo([reflection_pb2.ServerReflectionRequest(list_services="")])
    assert (await call.read()).list_services_response.service


async def test_reflection_can_be_switched_off(embedded: nodes.Node) -> None:
    """Then the services cannot be listed; health checks still work."""
    async with (
        gateway(embedded.rpc_file, reflection=False) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.ServerReflectionInfo([reflection_pb2.ServerReflectionRequest()]).read()
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
