"""What one would write without a gateway: a threaded gRPC server that calls pyln-client: `naive.py SOCKET`."""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from pyln.client import LightningRpc

from custommsg.v1 import custommsg_pb2 as pb
from custommsg.v1 import custommsg_pb2_grpc

WORKERS: Final = 10
"""As in gRPC's own examples; more are slower."""


class Naive(custommsg_pb2_grpc.CustomMsgServiceServicer):
    """The one method that matters.

    Args:
        node: lightningd.
    """

    def __init__(self, node: LightningRpc) -> None:
        self._node = node

    def SendCustomMsg(
        self, request: pb.SendCustomMsgRequest, context: grpc.ServicerContext
    ) -> pb.SendCustomMsgResponse:
        """Send one message."""
        answer = self._node.sendcustommsg(request.message.peer_id.hex(), request.message.msg.hex())
        return pb.SendCustomMsgResponse(status=answer["status"])


def main(rpc_file: str) -> None:
    """Serve until stopped."""
    server = grpc.server(ThreadPoolExecutor(WORKERS))
    servicer = Naive(LightningRpc(rpc_file))  # type: ignore[abstract]  # the other methods are not called
    custommsg_pb2_grpc.add_CustomMsgServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    signal.sigwait({signal.SIGTERM})
    server.stop(None)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for all threads that are started from here
    main(sys.argv[1])
