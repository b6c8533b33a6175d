"""The foreign contracts, through their own stubs."""
