"""What a client shows the gateway: a rune with each call, a certificate for the connection."""

from __future__ import annotations

import functools
import re
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import grpc

RUNE_KEY: Final = "rune"
_RUNE: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}", re.ASCII)

File = str | PathLike[str]
C = TypeVar("C")


def channel_credentials(
    credentials: grpc.ChannelCredentials | None, ca: File | None, cert: File | None, key: File | None
) -> grpc.ChannelCredentials | None:
    """Make the connection's credentials: those given, or those in files; None for a connection in the clear.

    Args:
        credentials: ready made.
        ca: PEM: what the gateway's certificate is signed by.
        cert: PEM: our certificate.
        key: PEM: its key.

    Raises:
        OSError: a file cannot be read.
        ValueError: both kinds are given, or half of a pair.
    """
    if (cert is None) != (key is None):
        raise ValueError("cert and key belong together")
    if ca is None and cert is None:
        return credentials
    if credentials is not None:
        raise ValueError("give either credentials, or ca, cert and key")
    parts = [None if file is None else Path(file).read_bytes() for file in (ca, key, cert)]
    return grpc.ssl_channel_credentials(*parts)


def checked_rune(rune: str | None) -> str | None:
    """Check that a rune is one as far as its letters go; white space around it is dropped.

    Raises:
        ValueError: it is none. It is not quoted: what is nearly a credential belongs in no message.
    """
    if rune is None:
        return None
    if not _RUNE.fullmatch(rune.strip()):
        raise ValueError("this is no rune: it is base64 text, as `lightning-cli createrune` prints it")
    return rune.strip()


class RuneChannel:
    """A channel whose calls all show a rune; generated stubs take it for one."""

    def __init__(self, channel: Any, rune: str) -> None:
        self._channel = channel
        self._metadata = ((RUNE_KEY, rune),)

    def __getattr__(self, kind: str) -> Any:
        # unary_unary, unary_stream and so on: what makes the callable of a method.
        make = getattr(self._channel, kind)

        def made(*arguments: Any, **keywords: Any) -> Any:
            return functools.partial(make(*arguments, **keywords), metadata=self._metadata)

        return made


def showing(channel: C, rune: str | None) -> C:
    """Return a channel for a stub, whose calls show the rune if there is one."""
    return channel if rune is None else cast("C", RuneChannel(channel, rune))
