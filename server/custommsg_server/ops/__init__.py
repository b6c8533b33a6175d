"""Operations: metrics, traces, logs, health, doctor."""
