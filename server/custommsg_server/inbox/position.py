"""Where a subscription starts, and why it cannot start or go on there."""

from __future__ import annotations

from enum import Enum, unique


@unique
class Start(Enum):
    """Where a subscription starts, if not after a given position."""

    LIVE = "live"
    """With what comes from now on."""
    BEGINNING = "beginning"
    """With the oldest event that is kept now."""


class PositionError(Exception):
    """There is no going on from a position.

    Args:
        message: what a person reads.
        earliest: the sequence number of the oldest event that is kept, or of the next one if none is.
        latest: the sequence number of the newest event; 0 if there never was one.
    """

    def __init__(self, message: str, earliest: int, latest: int) -> None:
        super().__init__(message)
        self.earliest = earliest
        self.latest = latest


class PositionExpired(PositionError):  # noqa: N818 -- what happened, as the contract calls it
    """The events after a position are no longer kept, or not all of them."""

    def __init__(self, earliest: int, latest: int) -> None:
        super().__init__(
            f"what came after this position is no longer kept; the oldest event kept is {earliest}",
            earliest,
            latest,
        )


class PositionUnknown(PositionError):  # noqa: N818 -- as above
    """A position is beyond the newest event: it belongs to another inbox."""

    def __init__(self, earliest: int, latest: int) -> None:
        super().__init__(
            f"this position is of another inbox; the newest event of this one is {latest}",
            earliest,
            latest,
        )
