"""The node's key, and the lock on its directory."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

from pyln.proto.primitives import PrivateKey

_FILE: Final = "devnode_secret"
_OF_A_REAL_NODE: Final = "hsm_secret"


class DirectoryError(Exception):
    """The node cannot use the directory. The message says why, and what to do."""


def load_key(directory: Path) -> PrivateKey:
    """Read the node's key from `directory`, or make one and keep it there (mode 0600).

    Raises:
        DirectoryError: the directory belongs to a real node, or the file does not hold a key.
    """
    if (directory / _OF_A_REAL_NODE).exists():
        raise DirectoryError(
            f"{directory} holds an {_OF_A_REAL_NODE}, so that it belongs to a real node. Choose another directory."
        )
    path = directory / _FILE
    if not path.exists():
        # It gets its name when it is complete, so that a crash cannot leave half a key behind.
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(secrets.token_bytes(32))
        unfinished.rename(path)
    try:
        return PrivateKey(path.read_bytes())
    except ValueError:
        raise DirectoryError(f"{path} does not hold a key of 32 bytes. Remove it to get a new one.") from None


class Lock:
    """A lock that keeps a second node out of a directory, as lightningd's pid file does.

    Raises:
        DirectoryError: another node runs there.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise DirectoryError(
                f"{path} is locked: another node runs in this directory. Stop it, or choose another directory."
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another node have the directory."""
        os.close(self._file)
