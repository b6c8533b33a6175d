"""What the subscriptions of both clients share, without I/O but the log."""

from __future__ import annotations

import logging
from typing import Generic, TypeVar

from custommsg._cursor import Cursor
from custommsg._reconnect import Reconnects
from custommsg.errors import CustomMsgError
from custommsg.events import Event

E_co = TypeVar("E_co", bound=Event, covariant=True)
"""What a subscription yields."""

_log = logging.getLogger("custommsg")


class SubscriptionBase(Generic[E_co]):
    """The position of a subscription, and what becomes of a failure."""

    def __init__(self, cursor: Cursor, reconnects: Reconnects) -> None:
        self._cursor = cursor
        self._reconnects = reconnects

    @property
    def position(self) -> int | None:
        """The sequence number up to which all was yielded, or passed no filter; None until it is registered.

        `subscribe(after=position, inbox_id=inbox_id)` goes on from here, in this process or another. It moves
        on with time even where nothing is yielded.
        """
        return self._cursor.position

    @property
    def inbox_id(self) -> str:
        """The inbox in which `position` means something; empty until it is registered."""
        return self._cursor.inbox_id

    def _registered(self) -> None:
        if self._reconnects.failures:
            _log.info("Connected again; going on after event %s.", self.position)
        self._reconnects.registered()

    def _wait_after(self, failure: CustomMsgError) -> float:
        """Return the seconds to wait before the next connection; raise `failure` if there is none."""
        level = logging.INFO if self._reconnects.failures else logging.WARNING  # one warning for each outage
        wait = self._reconnects.wait_after(failure)
        if wait is None:
            raise self._cursor.explain(failure)
        _log.log(level, "Cut off after event %s (%s); trying again in %.3g s.", self.position, failure, wait)
        return wait

    def _to_ack(self, event: Event | None) -> int:
        """Return what `ack` is to acknowledge."""
        position = event.sequence if event is not None else self.position
        if not self._cursor.consumer or position is None:
            raise ValueError("nothing to acknowledge: give consumer= to subscribe, and start it first")
        return position

    def _not_acked(self, failure: CustomMsgError) -> None:
        # An ack that nobody asked for may fail: the next heartbeat brings another.
        _log.debug("The position of %r was not stored: %s", self._cursor.consumer, failure)
