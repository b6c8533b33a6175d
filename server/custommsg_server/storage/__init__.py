"""What the SQLite engines of inbox and outbox share: opening files, advice on errors, the clock by which age counts."""
