"""Listens on addresses: TCP with or without TLS, and unix sockets."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from custommsg_server.domain.address import Address, ListenError

if TYPE_CHECKING:
    from custommsg_server.access.tls import Tls

_REASONS: Final = {
    errno.EADDRINUSE: (
        "it is in use",
        "Stop the program that uses it (ss -lntxp shows it), or use another address.",
    ),
    errno.EADDRNOTAVAIL: (
        "it is not an address of this machine",
        "Use an address of this machine, or 0.0.0.0 for all of them.",
    ),
    errno.EACCES: (
        "this user may not listen there",
        "Use a port above 1023, or a folder that this user can write to.",
    ),
    errno.ENOENT: ("its folder does not exist", "Create the folder, or use another address."),
}


def bind(server: grpc.aio.Server, address: Address, tls: Tls | None = None) -> Address:
    """Listen on an address; return it, with the chosen port if its port is 0.

    Args:
        server: the server.
        address: the address.
        tls: for TCP; a unix socket is protected by its mode instead.

    Raises:
        ListenError: it is in use, or not an address of this machine.
    """
    try:
        try_address(address)  # first without gRPC, whose core would log errors of its own
    except OSError as error:
        what, advice = explain(error)
        raise ListenError(f"Cannot listen on {address}: {what}. {advice}") from None
    try:
        if address.path is not None:
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
            f"Cannot listen on {address}: it is in use, or not an address of this machine. Use another address."
        ) from None


def try_address(address: Address) -> None:
    """Check that an address can be used, and release it again.

    Raises:
        OSError: it cannot be used; `explain` says why.
    """
    if address.path is None:
        with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    elif _answers(address.path):  # gRPC would unlink it; that is right only for a stale socket
        raise OSError(errno.EADDRINUSE, "")
    elif not address.path.parent.is_dir():
        raise OSError(errno.ENOENT, "")
    elif not os.access(address.path.parent, os.W_OK):
        raise OSError(errno.EACCES, "")


def explain(error: OSError) -> tuple[str, str]:
    """Return why an address cannot be used, and what to do."""
    return _REASONS.get(error.errno or 0, (error.strerror or str(error), "Listen on another address."))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False


@contextmanager
def _owner_only() -> Iterator[None]:
    # With umask the mode applies from the start; chmod would come too late.
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
