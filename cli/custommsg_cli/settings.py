"""What is the same for every command, and how arguments of more than one of them are read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from cyclopts import CycloptsError, Parameter

from custommsg import _core, sync

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for every command."""

    address: str
    timeout: float
    json: bool
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    rune: str | None = field(default=None, repr=False)

    def connect(self) -> sync.Client:
        """Make the client.

        Raises:
            CycloptsError: the credentials are none.
        """
        try:
            return sync.connect(
                self.address,
                timeout=self.timeout,
                ca=self.ca,
                cert=self.cert,
                key=self.key,
                rune=self.rune,
            )
        except (OSError, ValueError) as error:
            raise CycloptsError(msg=str(error)) from None


Global = Annotated[Settings, Parameter(parse=False)]


def message_type(text: str) -> int:
    """Read a message type, decimal or 0x hex.

    Raises:
        ValueError: it is none.
    """
    if not _NUMBER.fullmatch(text) or (number := int(text, 0 if text[1:2] in "xX" else 10)) > _core.MAX_TYPE:
        raise ValueError(f"{text!r} is no message type: give a number up to 65535, or 0xffff")
    return number
