"""How fast the gateway receives: `python -m benchmarks.inbox`, or `make bench-inbox`."""
