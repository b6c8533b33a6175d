"""Turns lightningd's replies into results and reasons.

Nearly all errors have the code -32600, so only their texts differ. The texts were recorded from lightningd v26.06.6,
in tests/golden/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from custommsg_server.domain import wire
from custommsg_server.domain.errors import (
    Reason,
    RelayError,
    no_credential,
    node_unavailable,
    not_permitted,
    not_sent,
    overloaded,
)
from custommsg_server.node.port import Announcement, Connected, NetAddress, NodeInfo, Peer

T = TypeVar("T")

INVALID_PARAMS: Final = -32602

LIGHTNINGD: Final = -1
CONNECT_FAILED: Final = (400, 401, 402)
"""No address known, all addresses failed, disconnected during (common/jsonrpc_errors.h)."""

FEATURE_SETS: Final = ("init", "node", "channel", "invoice")
"""Where a node says its features: the fields of `our_features` of getinfo."""

_INTERNAL_TYPE = re.compile(r"Cannot send messages of type (\d+) \((\w+)\)")


def result_of(reply: Mapping[str, Any]) -> Any:
    """Return the result of a JSON-RPC reply. Raises RelayError: the reply is an error, or not a valid reply."""
    if "result" in reply and reply.get("error") is None:
        return reply["result"]
    raise error_of(reply.get("error"))


def outcome_of(reply: Mapping[str, Any] | RelayError) -> str | RelayError:
    """Return the status in the reply of sendcustommsg, or the error."""
    if isinstance(reply, RelayError):
        return reply
    try:
        status = reply["result"]["status"]  # the fast path: this runs for each message
        if type(status) is str and "error" not in reply:
            return status
    except (KeyError, TypeError, IndexError):
        pass
    try:
        return _field(result_of(reply), "status", str)
    except RelayError as error:
        return error


def peers_of(reply: Mapping[str, Any]) -> list[Peer]:
    """Return the peers in the reply of listpeers. Raises RelayError: it answered with an error."""
    return [
        Peer(
            peer_id=_node_id(peer),
            connected=_field(peer, "connected", bool),
            address=_first_text(peer, "netaddr"),
            num_channels=_count(peer, "num_channels"),
            features=_hex(peer, "features"),
        )
        for peer in _field(result_of(reply), "peers", list)
    ]


def info_of(reply: Mapping[str, Any]) -> NodeInfo:
    """Return the description in the reply of getinfo. Raises RelayError: it answered with an error."""
    result = result_of(reply)
    node_id, ours = _node_id(result), result.get("our_features")
    return NodeInfo(
        node_id=node_id,
        alias=_text(result, "alias"),
        network=_field(result, "network", str),
        version=_field(result, "version", str),
        color=_hex(result, "color").hex(),
        block_height=_count(result, "blockheight"),
        is_synced=not any(f"warning_{daemon}_sync" in result for daemon in ("bitcoind", "lightningd")),
        active_channels=_count(result, "num_active_channels"),
        inactive_channels=_count(result, "num_inactive_channels"),
        pending_channels=_count(result, "num_pending_channels"),
        peers=_count(result, "num_peers"),
        addresses=_addresses(result),
        features={name: _hex(ours, name) for name in FEATURE_SETS} if isinstance(ours, Mapping) else {},
    )


def announcement_of(reply: Mapping[str, Any]) -> Announcement | None:
    """Return the node in the reply of listnodes, or None. Raises RelayError: it answered with an error."""
    nodes = _field(result_of(reply), "nodes", list)
    if not nodes:
        return None
    node = nodes[0] if isinstance(nodes[0], Mapping) else {}
    return Announcement(
        node_id=_node_id(node, "nodeid"),
        time=_count(node, "last_timestamp"),
        alias=_text(node, "alias"),
        color=_hex(node, "color").hex(),
        features=_hex(node, "features"),
        addresses=_addresses(node),
    )


def result_of_connect(reply: Mapping[str, Any]) -> Connected:
    """Return the reply of connect. Raises RelayError: it answered with an error."""
    error = reply.get("error")
    if isinstance(error, Mapping):
        code, message = error.get("code"), str(error.get("message", ""))
        if code in CONNECT_FAILED or (code == LIGHTNINGD and message.startswith("Host ")):
            raise unreachable(message)
    result = result_of(reply)
    _field(result, "id", str)
    address = _address(result.get("address")) or NetAddress("", "", 0)
    return Connected(_hex(result, "features"), result.get("direction") == "in", address)


def unreachable(why: str) -> RelayError:
    """Make the error for a peer to which the node cannot connect."""
    return RelayError(
        Reason.PEER_NOT_CONNECTED,
        f"The node could not connect to this peer: {why[:200]}",
        field="node_id",
    )


def verdict_of(reply: Mapping[str, Any] | RelayError) -> RelayError | None:
    """Return why checkrune refused the rune; None if it accepted it.

    A lost connection is not OUTCOME_UNKNOWN here, since no message was sent yet.
    """
    if isinstance(reply, RelayError):
        if reply.reason is not Reason.OUTCOME_UNKNOWN:
            return reply
        if reply.expired:
            return not_sent()
        return node_unavailable("the connection to it broke while it checked the rune")
    try:
        if _field(result_of(reply), "valid", bool):
            return None
    except RelayError as error:
        return rune_error_of(reply.get("error")) or error
    return no_credential("the node does not accept this rune")


def rune_error_of(error: object) -> RelayError | None:
    """Turn an error of checkrune into a reason; None if the error is not about the rune.

    lightningd's text quotes restrictions of the rune, never the call. For an invalid rune it may quote the rune itself;
    that text is not passed on.
    """
    if not isinstance(error, Mapping):
        return None
    text = str(error.get("message", ""))
    match error.get("code"):
        case 1501 | 1503:
            return no_credential(f"the node refuses the rune: {text[:200]}")
        case -32602 if text.startswith("rune:"):
            return no_credential("the text is not a rune")
        case 1502 if text.endswith("too soon"):
            # https://grpc.github.io/grpc/core/md_doc_statuscodes.html: never PERMISSION_DENIED for a rate.
            text = "The rune has a rate limit, and was used too soon. Try again later."
            return overloaded("rune_rate", text, 1.0)
        case 1502:
            return not_permitted(text.removeprefix("Not permitted: "))
        case _:
            return None


def error_of(error: object) -> RelayError:
    """Turn the error of a JSON-RPC reply into a reason."""
    if not isinstance(error, Mapping):
        return _node_error("?", "a reply without a result and without an error")
    code, message = error.get("code"), str(error.get("message", ""))
    if message.startswith(("No such peer", "Unknown peer")):
        return RelayError(
            Reason.PEER_UNKNOWN,
            "The node does not know this peer. Connect to it first: lightning-cli connect ID HOST PORT.",
            field="node_id",
        )
    if message.startswith(("Peer is not connected", "Peer not connected")):
        return RelayError(
            Reason.PEER_NOT_CONNECTED,
            "The node is not connected to this peer now. Try again when ListPeers shows it as connected.",
            field="node_id",
        )
    if internal := _INTERNAL_TYPE.match(message):
        return wire.internal_type(int(internal[1]), internal[2])
    if code == INVALID_PARAMS and message.startswith("node_id:"):
        return RelayError(Reason.INVALID_NODE_ID, "The node refuses this node id. Check it.", field="node_id")
    if code == INVALID_PARAMS and message.startswith("msg:"):
        return RelayError(Reason.INVALID_MESSAGE, "The node refuses this message. Check it.", field="msg")
    return _node_error(str(code), message)


def _node_error(code: str, text: str) -> RelayError:
    return RelayError(
        Reason.NODE_ERROR,
        f"The node answered with an error that the gateway does not know (code {code}): {text[:200]}",
        metadata={"code": code},
    )


def _field(obj: object, name: str, kind: type[T]) -> T:
    value = obj.get(name) if isinstance(obj, Mapping) else None
    if not isinstance(value, kind):
        raise _node_error("?", f"a reply without {name}")
    return value


def _count(obj: Mapping[str, Any], name: str) -> int:
    value = obj.get(name)
    return value if isinstance(value, int) and 0 <= value < 1 << 32 else 0


def _text(obj: Mapping[str, Any], name: str) -> str:
    """Return text that protobuf can encode, since any node of the network chooses it; empty if it is missing."""
    return str(obj.get(name, "")).encode(errors="replace").decode()


def _first_text(obj: Mapping[str, Any], name: str) -> str:
    """Return the first of some texts; empty if there is none."""
    texts = obj.get(name)
    first = texts[0] if isinstance(texts, list) and texts else ""
    return str(first).encode(errors="replace").decode()


def _hex(obj: Mapping[str, Any], name: str) -> bytes:
    """Return bytes given as hex digits; empty if they are missing or invalid."""
    value = obj.get(name)
    try:
        return wire.unhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""


def _addresses(obj: Mapping[str, Any]) -> tuple[NetAddress, ...]:
    found = obj.get("address" if "address" in obj else "addresses")
    listed = map(_address, found if isinstance(found, list) else ())
    return tuple(one for one in listed if one is not None)


def _address(obj: object) -> NetAddress | None:
    if not isinstance(obj, Mapping):
        return None
    kind, host, port = _text(obj, "type"), _text(obj, "address") or _text(obj, "socket"), obj.get("port", 0)
    return NetAddress(kind, host, port) if host and isinstance(port, int) and 0 <= port < 1 << 16 else None


def _node_id(obj: object, name: str = "id") -> bytes:
    try:
        return wire.unhex(_field(obj, name, str))
    except ValueError:
        raise _node_error("?", "a reply with an id that is not hex") from None
