"""The inbox: stores events until the retention deletes them, and serves them to subscribers."""
