"""Access control: TLS, credentials, runes, and the limits of each caller."""
