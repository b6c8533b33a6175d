"""The bitcoin networks, as far as a node without a block chain needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Network:
    """One bitcoin network.

    Args:
        name: lightningd's name for it, which is also the name of its directory.
        chain_hash: the hash of its genesis block in wire order, 32 bytes (BOLT 0).
        port: where Lightning nodes of this network listen by default.
    """

    name: str
    chain_hash: bytes
    port: int


NETWORKS: Final[dict[str, Network]] = {
    name: Network(name, bytes.fromhex(chain_hash), port)
    for name, chain_hash, port in (
        ("bitcoin", "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000", 9735),
        ("regtest", "06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f", 19846),
        ("signet", "f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000", 39735),
        ("testnet", "43497fd7f826957108f4a30fd9cec3aeba79972084e90ead01ea330900000000", 19735),
        ("testnet4", "43f08bdab050e35b567c864b91f47f50ae725ae2de53bcfbbaf284da00000000", 49735),
    )
}
"""The networks by name. The values are those of bitcoin/chainparams.c."""
