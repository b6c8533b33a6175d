"""gRPC: servicers, conversions, status codes, health."""
