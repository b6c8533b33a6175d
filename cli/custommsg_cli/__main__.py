"""The command `custommsg`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# grpc writes a log of its own to stderr, where our errors go. It looks here when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from custommsg_cli.app import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows its name; None for those of the process.

    Returns:
        The exit status: 0; 2 if the command was used wrongly; 64 + the gRPC code if the call failed.
    """
    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
