"""The limit of the library: a grpc.aio server whose handler does nothing: `empty.py [CA CERT KEY]`, for mutual TLS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc

from benchmarks.programs import loops
from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc


class Empty(custommsg_pb2_grpc.CustomMsgServiceServicer):
    """The same messages as the gateway's."""

    async def SendCustomMsg(
        self, request: pb.SendCustomMsgRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SendCustomMsgResponse:
        """Answer at once."""
        return pb.SendCustomMsgResponse(status="Message sent to connectd for delivery", type=37913)


async def main(tls: list[bytes]) -> None:
    """Serve until stopped; `tls` is empty, or a CA, a certificate and its key."""
    server = grpc.aio.server()
    servicer = Empty()  # type: ignore[abstract]  # the other methods are not called
    custommsg_pb2_grpc.add_CustomMsgServiceServicer_to_server(servicer, server)
    if tls:
        ca, cert, key = tls
        credentials = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await loops.until_stopped(f"127.0.0.1:{port}")
    await server.stop(None)


if __name__ == "__main__":
    loops.run(main([Path(file).read_bytes() for file in sys.argv[1:]]))
