"""Connects stdin and stdout to a unix socket, for machines without socat: `python pipe.py SOCKET`.

The first line that it sends is the token in the environment variable CUSTOMMSG_TOKEN. lightningd runs it as its
plugin, perhaps where the gateway is not installed, so it needs only the standard library.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress


def main(path: str) -> None:
    """Copy both ways until one side ends."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.sendall(os.environ["CUSTOMMSG_TOKEN"].encode() + b"\n")

    def inwards() -> None:
        while data := os.read(0, 1 << 16):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    def outwards() -> None:
        while data := sock.recv(1 << 16):
            while data:
                data = data[os.write(1, data) :]

    def quietly(copy: Callable[[], None]) -> None:
        with suppress(OSError):  # one side was killed
            copy()

    threading.Thread(target=quietly, args=(inwards,), daemon=True).start()
    quietly(outwards)


if __name__ == "__main__":
    main(sys.argv[1])
