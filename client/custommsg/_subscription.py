"""What the subscriptions of both clients share: their position, and what they log."""

from __future__ import annotations

import logging
from typing import Generic, TypeVar

from custommsg._cursor import Cursor
from custommsg._reconnect import Reconnects
from custommsg._status import SAFE
from custommsg.errors import CustomMsgError
from custommsg.events import Event

E_co = TypeVar("E_co", bound=Event, covariant=True)
"""What a subscription yields."""

_log = logging.getLogger("custommsg")


class SubscriptionBase(Generic[E_co]):
    """The position of a subscription, and what happens after a failure."""

    def __init__(self, cursor: Cursor, reconnects: Reconnects) -> None:
        self._cursor = cursor
        self._reconnects = reconnects

    @property
    def position(self) -> str | None:
        """Everything up to it was yielded or did not pass the filter; None until it is registered.

        `subscribe(after=position)` goes on from here, in this process or another. It moves on with time, also while
        nothing is yielded. Opaque: store it and pass it on, but do not parse, compare or compute it.
        """
        return self._cursor.position

    def _registered(self) -> None:
        if self._reconnects.failures:
            _log.info("Connected again.")
        self._reconnects.registered()

    def _wait_after(self, failure: CustomMsgError) -> float:
        """Return the seconds to wait before the next connection; raise `failure` if there must not be another."""
        level = logging.DEBUG if self._reconnects.failures else logging.WARNING  # one warning for each outage
        wait = self._reconnects.wait_after(failure)
        if wait is None:
            raise self._cursor.explain(failure)
        what = failure.message.removesuffix(f" {SAFE}")
        _log.log(level, "%s Connecting again in %.3g s.", what, wait)
        _log.debug("The failure: %s", failure)
        return wait

    def _not_acked(self, failure: CustomMsgError) -> None:
        # The caller did not ask for this ack, and the next heartbeat leads to another.
        _log.debug("The position of consumer %r was not stored: %s", self._cursor.consumer, failure)
