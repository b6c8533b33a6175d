"""What everybody speaks of: node ids, messages, reasons."""
