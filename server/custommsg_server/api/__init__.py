"""gRPC: servicers, conversions, status codes, dialects."""
