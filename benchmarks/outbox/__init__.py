"""What the outbox takes: enqueueing, and a million messages that wait."""
