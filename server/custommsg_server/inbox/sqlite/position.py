"""Positions in an SQLite inbox, as text: which inbox, and the sequence number of an event in it."""

from __future__ import annotations

import re
from typing import Final

from custommsg_server.inbox.port import Position, PositionInvalid, PositionOfOtherInbox

_POSITION: Final = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,18})")


class Positions:
    """Turns sequence numbers of the inbox with this id, 32 hex digits, into positions, and back."""

    def __init__(self, inbox_id: str) -> None:
        self._inbox = inbox_id[:16]
        self.prefix = f"{self._inbox}-"
        """The text before the sequence number, for loops that make many positions."""
        self._last = (0, Position(f"{self.prefix}0"))

    def of(self, sequence: int) -> Position:
        """Return the position of a sequence number; 0 is the one before the first event."""
        last, position = self._last
        if sequence != last:  # many subscribers are at the same place, and share the text
            position = Position(f"{self.prefix}{sequence}")
            self._last = sequence, position
        return position

    def sequence(self, position: Position) -> int:
        """Read a position.

        Raises:
            PositionInvalid: the text is not a position.
            PositionOfOtherInbox: it belongs to another inbox.
        """
        match = _POSITION.fullmatch(position)
        if match is None:
            raise PositionInvalid("this text is not a position")
        if match[1] != self._inbox:
            raise PositionOfOtherInbox("this position belongs to another inbox")
        return int(match[2])
