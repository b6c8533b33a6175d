"""Where the gateway listens: addresses, and who may reach them."""

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
    errno.EADDRINUSE: ("it is in use", "End the other program (ss -lntxp shows it), or listen elsewhere."),
    errno.EADDRNOTAVAIL: (
        "it is not an address of this machine",
        "Listen on one that is; 0.0.0.0 is all of them.",
    ),
    errno.EACCES: ("this user may not listen there", "Take a port above 1023, or a folder of this user's."),
    errno.ENOENT: ("its folder does not exist", "Make the folder, or listen elsewhere."),
}


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
        try_address(address)  # before gRPC does: its core writes lines of its own about what fails
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
            f"Cannot listen on {address}: it is in use, or not an address of this machine."
        ) from None


def try_address(address: Address) -> None:
    """Try whether an address can be had, and let it go again.

    Raises:
        OSError: it cannot; `explain` says why.
    """
    if address.path is None:
        with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    elif _answers(address.path):  # gRPC would unlink it; one that is left behind may go
        raise OSError(errno.EADDRINUSE, "")
    elif not address.path.parent.is_dir():
        raise OSError(errno.ENOENT, "")
    elif not os.access(address.path.parent, os.W_OK):
        raise OSError(errno.EACCES, "")


def explain(error: OSError) -> tuple[str, str]:
    """Return why an address cannot be had, and what to do."""
    return _REASONS.get(error.errno or 0, (error.strerror or str(error), "Listen on another address."))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False


@contextmanager
def _owner_only() -> Iterator[None]:
    # The mode is right from the first moment, which a chmod afterwards would not give.
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
