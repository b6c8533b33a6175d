"""The plugin channel: lightningd's hook calls in, `continue` out."""
