"""Server reflection, in both of the versions that clients ask for.

https://grpc.io/docs/guides/reflection/ -- grpcio's own package serves only v1alpha; v1 has the same messages in another
package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc


class _Pool:
    """protobuf's pool, which also finds methods; the original finds only their services."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindFileContainingSymbol(symbol.rpartition(".")[0])


class Reflection:
    """Serves the descriptors of the services with these full names."""

    services = (reflection.SERVICE_NAME,)

    def __init__(self, described: Sequence[str]) -> None:
        self._servicer = reflection.aio.ReflectionServicer([*described, *self.services], pool=_Pool())

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self._servicer, server)
        handler = grpc.stream_stream_rpc_method_handler(
            self._servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        v1 = grpc.method_handlers_generic_handler(
            "grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler}
        )
        server.add_generic_rpc_handlers((v1,))
