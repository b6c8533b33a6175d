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
DIALECTS = ROOT / "server/custommsg_server/api/dialects/protos"
CONFIG = """\
version: v2
modules:
  - path: proto
  - path: server
    lint:
      # The dialects: their names are those that Core Lightning, Greenlight and LND have given, and that is the point.
      # Their files lie where no client has files of those names.
      use: [STANDARD]
      except: [
        PACKAGE_DIRECTORY_MATCH, PACKAGE_SAME_DIRECTORY, PACKAGE_VERSION_SUFFIX, DIRECTORY_SAME_PACKAGE,
        SERVICE_SUFFIX, RPC_REQUEST_RESPONSE_UNIQUE, RPC_REQUEST_STANDARD_NAME, RPC_RESPONSE_STANDARD_NAME]
  - path: googleapis
    lint: {ignore: [googleapis]}
lint: {use: [STANDARD]}
breaking: {use: [FILE]}
"""


def workspace(folder: Path, protos: Path) -> Path:
    """Make a workspace of our protos, the dialects', and those that they import."""
    shutil.copytree(protos, folder / "proto")
    shutil.copytree(DIALECTS, folder / DIALECTS.relative_to(ROOT), ignore=shutil.ignore_patterns("*.py*"))
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
        for module in ("proto", "server"):
            if status := buf(now, "lint", module):
                return status
            if status := buf(now, "format", "--diff", "--exit-code", module):
                return status
        if arguments[:1] == ["--against"]:
            before = workspace(Path(temporary) / "before", Path(arguments[1]))
            return buf(now, "breaking", "proto", "--against", str(before / "proto"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
