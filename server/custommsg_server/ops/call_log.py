"""One line in the log for each call, when it has ended."""

from __future__ import annotations

from typing import Literal

from custommsg_server.api.call import Call
from custommsg_server.ops import logs

LogCalls = Literal["all", "failures", "none"]


class CallLog:
    """Logs calls at info. Implements `rpc.call.Observer`.

    Runes, payloads and keys are not among what a `Call` knows, so that they cannot get here.

    Args:
        which: the calls to log; may be changed at any time.
    """

    def __init__(self, which: LogCalls) -> None:
        self.which = which

    def began(self, call: Call) -> None:
        """See `rpc.call.Observer`."""

    def counted(self, call: Call, outcome: str, messages: int, limit: str) -> None:
        """See `rpc.call.Observer`."""

    def ended(self, call: Call) -> None:
        """See `rpc.call.Observer`."""
        if self.which == "none" or (self.which == "failures" and call.code == "OK") or not logs.says_info():
            return
        line: dict[str, object] = {"method": call.method, "code": call.code}
        if call.reason:
            line["reason"] = call.reason
        if call.peer:
            line["peer"] = call.peer.hex()
        if call.message_type is not None:
            line["type"] = call.message_type
        if call.size:
            line["size"] = call.size
        if call.is_stream and call.counts:
            line["messages"] = dict(call.counts)
        line["seconds"] = round(call.seconds, 6)
        line["caller"] = call.caller or call.context.peer()
        logs.info("call", line)
