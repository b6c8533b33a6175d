"""The entry point of the command `custommsg`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# grpc writes its own log to stderr, where our errors go. It reads this variable when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from custommsg_cli.app import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the command line without the command's own name; None for that of the process.

    Returns:
        The exit status: 0; 2 for wrong usage; 64 + the gRPC code if a call failed; 130 after Ctrl-C.
    """
    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
