"""Our Lightning node: the port, and lightningd behind it."""
