"""What happens inside, for those who run it: metrics, traces, and a line in the log for each call."""
