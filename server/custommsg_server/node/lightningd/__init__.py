"""lightningd: the link to its JSON-RPC socket, and the plugin channel."""
