"""Foreign contracts over the same core, so that clients that were written for them work unchanged."""

from typing import Final, Literal, get_args

Dialect = Literal["cln", "greenlight", "lnd"]
DIALECTS: Final[tuple[Dialect, ...]] = get_args(Dialect)
