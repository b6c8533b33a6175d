"""A deterministic simulation of the receive path. `world` says what happens in it, `ledger` what has to hold."""
