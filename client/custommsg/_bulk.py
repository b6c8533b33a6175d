"""Keeps track, without I/O, of the messages of one `send_many`: a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from custommsg import _core
from custommsg._send_queue import Outgoing
from custommsg.errors import CustomMsgError, InvalidRequest
from custommsg.model import Outbound, Result, Sent

MAX_MESSAGES: Final = 4096
"""Messages that were taken from the input and have no result yet."""
MAX_SIZE: Final = 2 << 20
"""Bytes of these messages. A peer reads at most 1 MB/s, and the timeout of a message begins when it is taken."""


class Bulk:
    """The messages of one input.

    Args:
        deliver: is called with each message when it has its outcome, perhaps in another thread.
    """

    def __init__(self, deliver: Callable[[Answer], None]) -> None:
        self._deliver = deliver
        self._taken = 0
        self._size = 0
        self.unfinished: dict[int, Listed] = {}
        """The messages that were taken and have no result yet, by index."""

    @property
    def is_full(self) -> bool:
        """Whether a result must be yielded before another message is taken."""
        return len(self.unfinished) >= MAX_MESSAGES or self._size >= MAX_SIZE

    def begin(self, message: Outbound, deadline: float) -> Listed:
        """Take a message. If it is invalid, its outcome is delivered at once, and it is not `awaited`.

        Raises:
            TypeError: as `send`.
        """
        outgoing = Listed(self._taken, message, deadline, self._deliver)
        try:
            outgoing.msg = _core.message(type=message.type, payload=message.payload, msg=message.msg)
            outgoing.peer_id = _core.peer_id(message.peer)
            outgoing.node_id = _core.node_id(message.node_id)
        except InvalidRequest as error:
            outgoing.awaited = False
            outgoing.answer(error)
        self.unfinished[self._taken] = outgoing
        self._taken += 1
        self._size += len(outgoing.msg)
        return outgoing

    def result(self, answer: Answer) -> Result:
        """Make the result of a message that was delivered."""
        outgoing, outcome = answer
        del self.unfinished[outgoing.index]
        self._size -= len(outgoing.msg)
        return Result(outgoing.index, outgoing.message, outcome)


class Listed(Outgoing):
    """One of the messages."""

    __slots__ = ("_deliver", "index", "message")

    def __init__(
        self, index: int, message: Outbound, deadline: float, deliver: Callable[[Answer], None]
    ) -> None:
        super().__init__(b"", b"", deadline)
        self._deliver = deliver
        self.index = index
        self.message = message

    def answer(self, outcome: Sent | CustomMsgError) -> None:
        """Deliver the outcome."""
        self._deliver((self, outcome))


Answer = tuple[Listed, Sent | CustomMsgError]
"""A message and its outcome."""
