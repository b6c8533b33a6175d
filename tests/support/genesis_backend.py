#!/usr/bin/env python3
"""A stand-in for lightningd's bitcoin backend plugin: regtest's genesis block, and nothing after it."""

from typing import Any

from pyln.client import Plugin

GENESIS_HASH = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
GENESIS_BLOCK = (
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
    "67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2002000000"
    "0101000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d"
    "0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f6620"
    "7365636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe554827"
    "1967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d57"
    "8a4c702b6bf11d5fac00000000"
)

plugin = Plugin(dynamic=False)


@plugin.method("getchaininfo")
def getchaininfo(**_: Any) -> dict[str, Any]:
    """Say that the chain has one block."""
    return {"chain": "regtest", "headercount": 0, "blockcount": 0, "ibd": False}


@plugin.method("getrawblockbyheight")
def getrawblockbyheight(height: int, **_: Any) -> dict[str, Any]:
    """Serve that block."""
    if int(height) == 0:
        return {"blockhash": GENESIS_HASH, "block": GENESIS_BLOCK}
    return {"blockhash": None, "block": None}


@plugin.method("estimatefees")
def estimatefees(**_: Any) -> dict[str, Any]:
    """Any fee will do."""
    return {
        "feerate_floor": 1000,
        "feerates": [{"blocks": n, "feerate": 1000} for n in (2, 6, 12, 100)],
    }


@plugin.method("sendrawtransaction")
def sendrawtransaction(**_: Any) -> dict[str, Any]:
    """Take no transactions."""
    return {"success": False, "errmsg": "no transactions on this chain"}


@plugin.method("getutxout")
def getutxout(**_: Any) -> dict[str, Any]:
    """Know no outputs."""
    return {"amount": None, "script": None}


plugin.run()
