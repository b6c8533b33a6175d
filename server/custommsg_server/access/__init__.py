"""Who calls, and what they may do: TLS, credentials, runes, accounts."""
