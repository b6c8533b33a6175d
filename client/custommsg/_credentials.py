"""The client's credentials: a certificate for the connection, a rune for each call."""

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
    """Return the credentials of the connection: those given, or those in files; None for no TLS.

    Args:
        credentials: made by the caller.
        ca: PEM file of the certificate authority that signed the gateway's certificate.
        cert: PEM file of our certificate.
        key: PEM file of its private key.

    Raises:
        OSError: a file cannot be read.
        ValueError: both kinds are given, or only one of cert and key.
    """
    if (cert is None) != (key is None):
        raise ValueError("cert and key belong together: give both, or neither")
    if ca is None and cert is None:
        return credentials
    if credentials is not None:
        raise ValueError("give either credentials, or ca, cert and key; not both")
    parts = [None if file is None else Path(file).read_bytes() for file in (ca, key, cert)]
    return grpc.ssl_channel_credentials(*parts)


def checked_rune(rune: str | None) -> str | None:
    """Check the characters of a rune, and strip white space around it.

    Raises:
        ValueError: it is not a rune. The text does not quote it: it may be a credential with a typing error.
    """
    if rune is None:
        return None
    if not _RUNE.fullmatch(rune.strip()):
        raise ValueError("the rune is invalid: give the base64 text that `lightning-cli createrune` prints")
    return rune.strip()


class RuneChannel:
    """A channel that adds a rune to the metadata of every call. Generated stubs accept it as a channel."""

    def __init__(self, channel: Any, rune: str) -> None:
        self._channel = channel
        self._metadata = ((RUNE_KEY, rune),)

    def __getattr__(self, kind: str) -> Any:
        # unary_unary, unary_stream and so on: they return the callable of a method.
        make = getattr(self._channel, kind)

        def made(*arguments: Any, **keywords: Any) -> Any:
            return functools.partial(make(*arguments, **keywords), metadata=self._metadata)

        return made


def with_rune(channel: C, rune: str | None) -> C:
    """Return the channel for a stub, with the rune on every call if there is one."""
    return channel if rune is None else cast("C", RuneChannel(channel, rune))
