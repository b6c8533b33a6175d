"""lightningd's replies become reasons here, and nowhere else.

Nearly every refusal has the code -32600, so the text has to tell them apart. The texts were recorded from
lightningd v26.06.6; tests/golden/ keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from custommsg_server import wire
from custommsg_server.errors import Reason, RelayError
from custommsg_server.node.port import NodeInfo, Peer

T = TypeVar("T")

INVALID_PARAMS: Final = -32602

_INTERNAL_TYPE = re.compile(r"Cannot send messages of type (\d+) \((\w+)\)")


def result_of(reply: Mapping[str, Any]) -> Any:
    """Return the result that a JSON-RPC reply carries.

    Raises:
        RelayError: the reply is an error, or no reply at all.
    """
    if "result" in reply and reply.get("error") is None:
        return reply["result"]
    raise error_of(reply.get("error"))


def status_of(reply: Mapping[str, Any]) -> str:
    """Return the status that sendcustommsg answered.

    Raises:
        RelayError: it answered with an error.
    """
    return _field(result_of(reply), "status", str)


def peers_of(reply: Mapping[str, Any]) -> list[Peer]:
    """Return the peers that listpeers answered.

    Raises:
        RelayError: it answered with an error.
    """
    return [
        Peer(
            node_id=_node_id(peer),
            connected=_field(peer, "connected", bool),
            address=str((peer.get("netaddr") or [""])[0]),
            num_channels=int(peer.get("num_channels", 0)),
        )
        for peer in _field(result_of(reply), "peers", list)
    ]


def info_of(reply: Mapping[str, Any]) -> NodeInfo:
    """Return what getinfo answered.

    Raises:
        RelayError: it answered with an error.
    """
    result = result_of(reply)
    return NodeInfo(
        node_id=_node_id(result),
        alias=str(result.get("alias", "")),
        network=_field(result, "network", str),
        version=_field(result, "version", str),
    )


def error_of(error: object) -> RelayError:
    """Turn the error of a JSON-RPC reply into a reason."""
    if not isinstance(error, Mapping):
        return _node_error("?", "a reply without a result and without an error")
    code, message = error.get("code"), str(error.get("message", ""))
    if message.startswith("No such peer"):
        return RelayError(
            Reason.PEER_UNKNOWN,
            "The node knows no such peer. Connect to it first: lightning-cli connect ID HOST PORT.",
            field="node_id",
        )
    if message.startswith("Peer is not connected"):
        return RelayError(
            Reason.PEER_NOT_CONNECTED,
            "The node is not connected to this peer now. Try again when ListPeers shows it as connected.",
            field="node_id",
        )
    if internal := _INTERNAL_TYPE.match(message):
        return wire.internal_type(int(internal[1]), internal[2])
    if code == INVALID_PARAMS and message.startswith("node_id:"):
        return RelayError(Reason.INVALID_NODE_ID, "The node does not take this node id.", field="node_id")
    if code == INVALID_PARAMS and message.startswith("msg:"):
        return RelayError(Reason.INVALID_MESSAGE, "The node does not take this message.", field="msg")
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


def _node_id(obj: object) -> bytes:
    try:
        return wire.unhex(_field(obj, "id", str))
    except ValueError:
        raise _node_error("?", "a reply with an id that is no hex") from None
