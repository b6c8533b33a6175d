"""Lint the protos with buf, offline: `python tools/lint_protos.py [--against OLD_PROTO_FOLDER]`.

buf would take google/rpc from a registry; here it comes from the installed googleapis-common-protos, and the two
stand side by side in a workspace of a moment. With --against it looks for breaking changes as well.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import google.rpc

ROOT = Path(__file__).resolve().parent.parent
BUF = Path(sys.executable).with_name("buf")
GOOGLE_RPC = Path(next(iter(google.rpc.__path__)))
CONFIG = """\
version: v2
modules:
  - path: proto
  - path: googleapis
    lint: {ignore: [googleapis]}
lint: {use: [STANDARD]}
breaking: {use: [FILE]}
"""


def workspace(folder: Path, protos: Path) -> Path:
    """Make a workspace of our protos and those that they import."""
    shutil.copytree(protos, folder / "proto")
    (folder / "googleapis/google/rpc").mkdir(parents=True)
    shutil.copy(GOOGLE_RPC / "status.proto", folder / "googleapis/google/rpc")
    (folder / "buf.yaml").write_text(CONFIG)
    return folder


def buf(folder: Path, *arguments: str) -> int:
    """Run buf in a workspace; return its exit status."""
    return subprocess.run([BUF, *arguments], cwd=folder, check=False).returncode  # noqa: S603 -- our own words


def main(arguments: list[str]) -> int:
    """Lint, check the format, and compare with an older version if one is given."""
    with tempfile.TemporaryDirectory() as temporary:
        now = workspace(Path(temporary) / "now", ROOT / "proto")
        if status := buf(now, "lint", "proto"):
            return status
        if status := buf(now, "format", "--diff", "--exit-code", "proto"):
            return status
        if arguments[:1] == ["--against"]:
            before = workspace(Path(temporary) / "before", Path(arguments[1]))
            return buf(now, "breaking", "proto", "--against", str(before / "proto"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
