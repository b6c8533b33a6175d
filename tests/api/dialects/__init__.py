"""The dialects, through their own stubs."""
