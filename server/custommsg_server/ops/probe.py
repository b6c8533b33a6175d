"""Ask a gateway for its health: `custommsg-server health`, or `python -m custommsg_server.ops.probe`.

For health checks of containers, the second form imports only gRPC and takes a fifth of the CPU time.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

# gRPC's C core would write the same errors to stderr.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ADDRESS: Final = "127.0.0.1:9737"
SERVING: Final = "SERVING"


def check(address: str = ADDRESS, service: str = "", timeout: float = 5.0) -> str:
    """Return the status that the gateway reports, e.g. "SERVING", or the error of the call.

    Args:
        address: host:port or unix:/path, without TLS. A gateway with TLS can listen on a unix socket as well.
        service: "" is the process; `custommsg.v1.CustomMsgService` is ready only while the node answers.
        timeout: seconds that it may take.
    """
    request = health_pb2.HealthCheckRequest(service=service)
    try:
        with grpc.insecure_channel(address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def main() -> None:
    """Print the status of the gateway; exit with 0 if it is SERVING, else with 1."""
    parser = argparse.ArgumentParser(description="Ask a gateway for its health.")
    parser.add_argument("--address", default=ADDRESS)
    parser.add_argument("--service", default="")
    parser.add_argument("--timeout", type=float, default=5.0)
    said = check(**vars(parser.parse_args()))
    print(said)  # noqa: T201 -- for the container runtime
    sys.exit(said != SERVING)


if __name__ == "__main__":
    main()
