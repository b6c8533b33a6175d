"""A Lightning node for tests, and a gateway on it."""
