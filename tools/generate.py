"""Generate Python from the protos: `python tools/generate.py CLIENT SERVER`, the two folders to write into.

Our own contract goes to the client. The dialects' protos lie in the server's package, where nobody else gets them:
a process that loads Core Lightning's or LND's own stubs beside them would have their names twice.
"""

import sys
from pathlib import Path

import google.rpc
from grpc_tools import protoc

BANNER = "# Generated from {source} by `make proto`. Do not edit.\n"
ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")


def main(client: Path, server: Path) -> int:
    """Generate all; return the first exit status that is not 0."""
    return generate(ROOT / "proto", client) or generate(ROOT / "server", server)


def generate(root: Path, target: Path) -> int:
    """Run protoc for each .proto file below a folder; return its exit status."""
    googleapis = Path(next(iter(google.rpc.__path__))).parent.parent
    includes = [f"-I{path}" for path in (root, googleapis, Path(protoc.__file__).parent / "_proto")]
    outputs = [f"--{kind}={target}" for kind in OUTPUTS]
    for source in sorted(path.relative_to(root) for path in root.rglob("*.proto")):
        if status := protoc.main(["protoc", *includes, *outputs, str(source)]):
            return int(status)
        package = target / source.parent
        for made in package.glob(f"{source.stem}_pb2*.py*"):
            made.write_text(BANNER.format(source=(root / source).relative_to(ROOT)) + made.read_text())
        for folder in (package, package.parent):
            if folder != target and not (folder / "__init__.py").exists():
                (folder / "__init__.py").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
