"""How fast the gateway is, side by side with the node itself: `python -m benchmarks`, or `make bench`."""
