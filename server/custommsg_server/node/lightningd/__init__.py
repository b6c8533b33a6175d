"""lightningd behind the port: the link to its socket, and the plugin channel."""
