"""What callers do, in the words of a rune: lightningd's methods where it has one, and ours elsewhere."""

from __future__ import annotations

from custommsg_server.domain.caller import Use
from custommsg_server.node.port import Outbound


def send_use(outbound: Outbound) -> Use:
    """Describe sending a message, as `lightning-cli sendcustommsg` would."""
    return Use("sendcustommsg", {"node_id": outbound.peer_id.hex(), "msg": outbound.message.hex()})
