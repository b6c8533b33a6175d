"""gl-client, Greenlight's client: `client.py URI CERTIFICATE KEY RUNE`.

It wants credentials, and signs each request with the key; with an http:// address it uses no TLS.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from glclient import Credentials, Node

sys.path.insert(0, str(Path(__file__).parent.parent))
import driver

uri, certificate, key, rune = sys.argv[1:]
CREDENTIALS = Credentials.from_parts(Path(certificate).read_bytes(), Path(key).read_bytes(), rune)
NODE = Node(b"", uri, CREDENTIALS)


def send(peer: str, message: str) -> dict[str, Any] | None:
    """Send a message; return how it failed, if it did."""
    try:
        NODE.send_custommsg(peer, bytes.fromhex(message))
    except ValueError as error:
        found = re.search(r'status: (\w+), message: "(.*?)", details: \[([0-9, ]*)\]', str(error))
        if found is None:
            return {"code": "its own", "text": str(error)}
        code = re.sub(r"(?<!^)(?=[A-Z])", "_", found[1]).upper()
        return {"code": code, "text": found[2], "details": bytes(map(int, found[3].split(","))).hex()}
    return None


def subscribe() -> None:
    """Forward what arrives."""
    driver.forward((message.peer_id, message.payload) for message in NODE.stream_custommsg())


def list_protocols(peer: str) -> dict[str, Any]:
    """Ask an LSP what it speaks (LSPS0)."""
    return {"text": str(NODE.get_lsp_client().list_protocols(peer).protocols)}


driver.serve({"send": send, "subscribe": subscribe, "list_protocols": list_protocols})
