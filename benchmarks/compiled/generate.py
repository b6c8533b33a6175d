"""Generate the Go stubs of both contracts: `python generate.py PROTOC_GEN_GO`.

They are not checked in: the contracts have one text each, and who builds this client needs Go's tools anyway.
"""

import sys
from pathlib import Path

import google.rpc
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODULE = "custommsg/benchmarks/compiled"
CONTRACTS = {
    ROOT / "proto": ("custommsg/v1/custommsg.proto", "custommsgv1"),
    ROOT / "server": ("custommsg_server/api/dialects/protos/cln.proto", "cln"),
}


def main(plugin: str) -> int:
    """Run protoc for each contract; return the first exit status that is not 0."""
    googleapis = Path(next(iter(google.rpc.__path__))).parent.parent
    for root, (source, package) in CONTRACTS.items():
        includes = [f"-I{path}" for path in (root, googleapis, Path(protoc.__file__).parent / "_proto")]
        options = [
            f"--plugin=protoc-gen-go={plugin}",
            f"--go_out={HERE}",
            f"--go_opt=module={MODULE}",
            f"--go_opt=M{source}={MODULE}/gen/{package}",
        ]
        if status := protoc.main(["protoc", *includes, *options, source]):
            return int(status)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
