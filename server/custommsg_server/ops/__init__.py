"""For those who run it: metrics, traces, logs, health, doctor."""
