"""Node ids for tests: points on secp256k1, and what only looks like one."""

from __future__ import annotations

from functools import cache

import coincurve

from custommsg_server.domain.wire import NodeId, parse_node_id


@cache
def node_id(number: int = 1) -> NodeId:
    """Return the node id of the secret key `number`."""
    return parse_node_id(coincurve.PrivateKey(number.to_bytes(32, "big")).public_key.format())


NOT_A_POINT = bytes.fromhex("02" + "ff" * 32)
