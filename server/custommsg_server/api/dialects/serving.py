"""Makes the servicers of the dialects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from custommsg_server.api.dialects import Dialect
from custommsg_server.api.dialects.base import DialectCore
from custommsg_server.api.dialects.cln import ClnNode, GreenlightNode
from custommsg_server.api.dialects.lnd import LndLightning, LndState, LndVersioner
from custommsg_server.api.dialects.protos import (
    cln_pb2,
    cln_pb2_grpc,
    greenlight_pb2,
    greenlight_pb2_grpc,
    lnd_pb2,
    lnd_pb2_grpc,
    verrpc_pb2,
    verrpc_pb2_grpc,
)
from custommsg_server.domain.types import TypeSet


@dataclass(frozen=True, slots=True)
class _Served:
    """One dialect. Implements `api.server.Servicer`."""

    files: Sequence[Any]
    """The modules that protoc generated from its protos."""
    servicers: Sequence[tuple[Callable[[Any, grpc.aio.Server], None], Any]]
    """Its servicers, each with the generated function that adds it."""

    @property
    def services(self) -> Sequence[str]:
        return [
            service.full_name for file in self.files for service in file.DESCRIPTOR.services_by_name.values()
        ]

    def add_to(self, server: grpc.aio.Server) -> None:
        for add, servicer in self.servicers:
            add(servicer, server)


def servicers(
    core: DialectCore, names: Collection[Dialect], lnd_types: TypeSet, version: str
) -> list[_Served]:
    """Return the servicers of dialects over one core.

    Args:
        core: the core.
        names: the dialects.
        lnd_types: the types of messages that LND's dialect sends and streams.
        version: of the gateway.
    """
    made: dict[Dialect, Callable[[], _Served]] = {
        "cln": lambda: _Served([cln_pb2], [(cln_pb2_grpc.add_NodeServicer_to_server, ClnNode(core))]),
        "greenlight": lambda: _Served(
            [greenlight_pb2], [(greenlight_pb2_grpc.add_NodeServicer_to_server, GreenlightNode(core))]
        ),
        "lnd": lambda: _Served(
            [lnd_pb2, verrpc_pb2],
            [
                (lnd_pb2_grpc.add_LightningServicer_to_server, LndLightning(core, lnd_types)),
                (lnd_pb2_grpc.add_StateServicer_to_server, LndState(core)),
                (verrpc_pb2_grpc.add_VersionerServicer_to_server, LndVersioner(core, version)),
            ],
        ),
    }
    return [make() for name, make in made.items() if name in names]
