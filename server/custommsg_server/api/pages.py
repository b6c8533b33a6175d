"""Pages of lists, as https://google.aip.dev/158 describes them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from custommsg_server.domain.errors import Reason, RelayError

T = TypeVar("T")


def page_size(asked: int, default: int, most: int) -> int:
    """Return the number of items in a page.

    Raises:
        RelayError: INVALID_PAGE: a negative number was asked for.
    """
    if asked < 0:
        raise RelayError(
            Reason.INVALID_PAGE, "The page size is negative. Use 0 for the default.", field="page_size"
        )
    return min(asked or default, most)


def page_of(items: Sequence[T], key: Callable[[T], bytes], size: int, token: str) -> tuple[list[T], str]:
    """Cut one page out of a list.

    Args:
        items: all of them, in any order.
        key: returns their sort key, which must be unique.
        size: the number of items in a page.
        token: the token of the previous page; empty for the first one.

    Returns:
        The page, and the token of the next one; empty if this is the last.

    Raises:
        RelayError: INVALID_PAGE.
    """
    after = _decode(token)
    left = sorted((item for item in items if after is None or key(item) > after), key=key)
    next_token = base64.urlsafe_b64encode(key(left[size - 1])).decode() if len(left) > size else ""
    return left[:size], next_token


def _decode(token: str) -> bytes | None:
    if not token:
        return None
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise RelayError(
            Reason.INVALID_PAGE,
            "The page token is invalid. Use next_page_token of the previous page.",
            field="page_token",
        ) from None
