"""Who calls, and whether to let them in."""
