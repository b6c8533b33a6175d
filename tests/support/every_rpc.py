"""A call of every RPC that the gateway serves, and certificates for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import trustme
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc
from custommsg_server.api.dialects.protos import cln_pb2, greenlight_pb2, lnd_pb2, verrpc_pb2
from custommsg_server.api.service import SERVICE
from custommsg_server.api.status import DETAILS_KEY
from support.keys import node_id

STRANGER = node_id(77)
"""A node that the node does not know."""
Metadata = Sequence[tuple[str, str]]


class Certificates:
    """A CA, a foreign one, and what they sign, in files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca, self.foreign = trustme.CA(), trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        self.cert_file, self.key_file = folder / "server.pem", folder / "server.key"
        self.renew()

    def renew(self) -> None:
        """Write a new certificate for the server, and its key: each file whole, as a careful tool does it."""
        issued = self.ca.issue_cert("127.0.0.1", "localhost")
        for path, content in (
            (self.key_file, issued.private_key_pem.bytes()),
            (self.cert_file, b"".join(pem.bytes() for pem in issued.cert_chain_pems)),
        ):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.rename(path)

    def settings(self, clients: bool) -> dict[str, Any]:
        """Return the settings for TLS, with certificates asked of clients or without."""
        asked = {"tls_client_ca": self.ca_file} if clients else {}
        return {"tls_cert": self.cert_file, "tls_key": self.key_file, **asked}

    def client(self, kind: str) -> grpc.ChannelCredentials:
        """Return what a client shows: nothing ("none"), or a "right", "wrong" or "expired" certificate."""
        root = self.ca.cert_pem.bytes()
        if kind == "none":
            return grpc.ssl_channel_credentials(root)
        signer = self.foreign if kind == "wrong" else self.ca
        ends = datetime.now(UTC) + (timedelta(days=-1) if kind == "expired" else timedelta(days=1))
        issued = signer.issue_cert("shop.example", common_name="shop", not_after=ends)
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        return grpc.ssl_channel_credentials(root, issued.private_key_pem.bytes(), chain)


@dataclass(frozen=True)
class Rpc:
    """An RPC of any service, and a request to try it with."""

    method: MethodDescriptor
    request: Any

    @property
    def path(self) -> str:
        """As gRPC names it."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    async def call(self, channel: grpc.aio.Channel, metadata: Metadata = ()) -> tuple[str, str]:
        """Make the call; return its code and its reason. A stream is left when it has begun."""
        outcome = await self._call(channel, metadata)
        while outcome == ("INTERNAL", "") and self.method.client_streaming:
            # grpc.aio's client shows this instead of the server's status when it was just writing (grpc#36066).
            outcome = await self._call(channel, metadata)
        return outcome

    async def _call(self, channel: grpc.aio.Channel, metadata: Metadata) -> tuple[str, str]:
        make = getattr(
            channel,
            ("stream" if self.method.client_streaming else "unary")
            + ("_stream" if self.method.server_streaming else "_unary"),
        )
        callable_ = make(
            self.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(self.method.output_type).FromString,
        )
        try:
            if self.method.client_streaming:
                call = callable_([self.request], metadata=metadata, timeout=20)
                answer = await call.read()
                if answer is not grpc.aio.EOF and answer.results[0].HasField("error"):
                    return _reason(answer.results[0].error)
                call.cancel()
            elif self.method.server_streaming:
                call = callable_(self.request, metadata=metadata, timeout=20)
                await call.wait_for_connection()
                if not any(key == "custommsg-position" for key, _ in await call.initial_metadata() or ()):
                    await call.read()  # our own contract's first response, or the error
                call.cancel()
            else:
                await callable_(self.request, metadata=metadata, timeout=20)
        except grpc.aio.AioRpcError as error:
            details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
            return _reason(status_pb2.Status.FromString(details)) if details else (error.code().name, "")
        return "OK", ""


def rpcs(peer: bytes, message_type: int = 0x9419) -> list[Rpc]:
    """Return every RPC of every service of the gateway, with a request that would succeed."""
    message = message_type.to_bytes(2, "big") + b"\xab\xcd"
    requests: dict[str, dict[str, Any]] = {
        "custommsg.v1.SendCustomMsgRequest": {"message": {"peer_id": peer, "msg": message}},
        "cln.SendcustommsgRequest": {"node_id": peer, "msg": message},
        "SendCustomMsgStream": {"messages": [{"number": 1, "peer_id": peer, "msg": message}]},
        "SubscribeCustomMsgs": {"filter": {"types": [message_type], "peer_ids": [peer]}},
        "ListEvents": {"filter": {"types": [message_type], "peer_ids": [peer]}},
        "SendCustomMessage": {"peer": peer, "type": message_type, "data": b"\xab\xcd"},
        "cln.ConnectRequest": {"id": f"{peer.hex()}@127.0.0.1:9"},
        # These fail: they must not disconnect the peer, and the embedded node takes no part in gossip.
        "cln.DisconnectRequest": {"id": STRANGER},
        "DisconnectPeer": {"pub_key": STRANGER.hex()},
        "GetNodeInfo": {"pub_key": STRANGER.hex()},
        "ConnectPeer": {"addr": {"pubkey": peer.hex(), "host": "127.0.0.1:9"}},
        "AckCustomMsgs": {"consumer": "nobody"},
        "DeleteConsumer": {"consumer": "nobody"},
        "EnqueueCustomMsg": {"message": {"outbound": {"peer_id": peer, "msg": message}}},
        "EnqueueCustomMsgStream": {"messages": [{"outbound": {"peer_id": peer, "msg": message}}]},
        "GetOutboxEntry": {"entry_id": "nobody"},
        "CancelOutboxEntry": {"entry_id": "nobody"},
    }
    return [
        Rpc(
            method,
            GetMessageClass(method.input_type)(
                **requests.get(method.input_type.full_name, requests.get(method.name, {}))
            ),
        )
        for file in (pb, cln_pb2, greenlight_pb2, lnd_pb2, verrpc_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


async def until_serving(channel: grpc.aio.Channel) -> None:
    """Wait until the gateway reports the node."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service=SERVICE), wait_for_ready=True
    )
    async for answer in watch:
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return


async def until_attached(channel: grpc.aio.Channel) -> None:
    """Wait until lightningd is attached: what peers send before that does not reach the gateway."""
    await until_serving(channel)
    stub = custommsg_pb2_grpc.CustomMsgServiceStub(channel)
    while not (await stub.GetInbox(pb.GetInboxRequest())).attached:
        pass


def _reason(status: status_pb2.Status) -> tuple[str, str]:
    code = next(code.name for code in grpc.StatusCode if code.value[0] == status.code)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return code, info.reason
    return code, ""
