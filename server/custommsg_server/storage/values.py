"""Values read from a file, which may be damaged or forged."""

from __future__ import annotations

import apsw


def number(value: object) -> int:
    """Return a value as a number. Raises apsw.CorruptError: it is not one."""
    if not isinstance(value, int):
        raise apsw.CorruptError("a number is not as it was written")
    return value
