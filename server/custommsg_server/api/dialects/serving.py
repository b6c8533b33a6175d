"""Makes the servicers of the dialects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from custommsg_server.api.dialects import Dialect
from custommsg_server.api.dialects.base import DialectCore
from custommsg_server.api.dialects.cln import ClnNode, GreenlightNode
from custommsg_server.api.dialects.lnd import LndLightning
from custommsg_server.api.dialects.protos import (
    cln_pb2,
    cln_pb2_grpc,
    greenlight_pb2,
    greenlight_pb2_grpc,
    lnd_pb2,
    lnd_pb2_grpc,
)
from custommsg_server.domain.types import TypeSet


@dataclass(frozen=True, slots=True)
class _Served:
    """One dialect. Implements `api.server.Servicer`."""

    file: Any
    """The module that protoc generated from its proto."""
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: Any

    @property
    def services(self) -> Sequence[str]:
        return [service.full_name for service in self.file.DESCRIPTOR.services_by_name.values()]

    def add_to(self, server: grpc.aio.Server) -> None:
        self.add(self.servicer, server)


def servicers(core: DialectCore, names: Collection[Dialect], lnd_types: TypeSet) -> list[_Served]:
    """Return the servicers of dialects; `lnd_types` are the types that LND's dialect sends and streams."""
    known: dict[Dialect, _Served] = {
        "cln": _Served(cln_pb2, cln_pb2_grpc.add_NodeServicer_to_server, ClnNode(core)),
        "greenlight": _Served(
            greenlight_pb2, greenlight_pb2_grpc.add_NodeServicer_to_server, GreenlightNode(core)
        ),
        "lnd": _Served(lnd_pb2, lnd_pb2_grpc.add_LightningServicer_to_server, LndLightning(core, lnd_types)),
    }
    return [served for name, served in known.items() if name in names]
