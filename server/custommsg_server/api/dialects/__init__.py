"""Contracts of other projects over the same core, so that their clients work unchanged."""

from typing import Final, Literal, get_args

Dialect = Literal["cln", "greenlight", "lnd"]
DIALECTS: Final[tuple[Dialect, ...]] = get_args(Dialect)
