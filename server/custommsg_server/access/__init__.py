"""Who may do what: permits, runes, limits per caller, and the core behind its door."""
