"""Which dialects there are, and how they come onto the server."""

from __future__ import annotations

from collections.abc import Collection

import grpc

from custommsg_server.api.dialects import Dialect
from custommsg_server.api.dialects.cln import ClnNode
from custommsg_server.api.dialects.core import Core
from custommsg_server.api.dialects.greenlight import GreenlightNode
from custommsg_server.api.dialects.lnd import LndLightning
from custommsg_server.api.dialects.protos import (
    cln_pb2,
    cln_pb2_grpc,
    greenlight_pb2,
    greenlight_pb2_grpc,
    lnd_pb2,
    lnd_pb2_grpc,
)


class Dialects:
    """Dialects over one core.

    Args:
        core: the core.
        names: those that are served.
        lnd_types: the types of messages that LND's dialect sends and streams.
    """

    def __init__(self, core: Core, names: Collection[Dialect], lnd_types: frozenset[int]) -> None:
        self._core = core
        self._names = names
        self._lnd_types = lnd_types

    @property
    def services(self) -> list[str]:
        """The full names of the services."""
        files = {"cln": cln_pb2, "greenlight": greenlight_pb2, "lnd": lnd_pb2}
        return [
            service.full_name
            for name in self._names
            for service in files[name].DESCRIPTOR.services_by_name.values()
        ]

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve them."""
        if "cln" in self._names:
            cln_pb2_grpc.add_NodeServicer_to_server(ClnNode(self._core), server)
        if "greenlight" in self._names:
            greenlight_pb2_grpc.add_NodeServicer_to_server(GreenlightNode(self._core), server)
        if "lnd" in self._names:
            lnd_pb2_grpc.add_LightningServicer_to_server(LndLightning(self._core, self._lnd_types), server)
