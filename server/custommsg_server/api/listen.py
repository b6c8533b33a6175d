"""Where the gateway listens: addresses, and who may reach them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from custommsg_server.access.tls import Tls
from custommsg_server.domain.address import Address, ListenError


def bind(server: grpc.aio.Server, address: Address, tls: Tls | None = None) -> Address:
    """Listen on an address; return it with the port that was chosen if it said 0.

    Args:
        server: who listens.
        address: where.
        tls: for TCP; a unix socket has the mode of its file instead.

    Raises:
        ListenError: it is taken, or not ours.
    """
    try:
        if address.path is not None:
            _refuse_live_socket(address.path)
            with _owner_only():
                server.add_insecure_port(str(address))
            return address
        port = (
            server.add_insecure_port(str(address))
            if tls is None
            else server.add_secure_port(str(address), tls.credentials)
        )
        return Address(host=address.host, port=port)
    except RuntimeError:
        raise ListenError(
            f"Cannot listen on {address}: it is in use, or not an address of this machine."
        ) from None


def _refuse_live_socket(path: Path) -> None:
    # gRPC unlinks a socket that is there; a stale one may go, a living one belongs to somebody.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise ListenError(f"Cannot listen on unix:{path}: another process does.")


@contextmanager
def _owner_only() -> Iterator[None]:
    # The mode is right from the first moment, which a chmod afterwards would not give.
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
