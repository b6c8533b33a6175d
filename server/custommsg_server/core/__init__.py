"""The core: sends messages to peers, and stores and serves the messages of peers."""
