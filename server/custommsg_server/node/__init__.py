"""The port to a node, and the lightningd link behind it."""
