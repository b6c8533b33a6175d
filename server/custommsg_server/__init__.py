"""The gateway: relays Lightning custom messages between gRPC callers and a Core Lightning node."""
