"""The gateway on a real lightningd, side by side with cln-grpc: `make bench LIGHTNINGD=… CLN_GRPC=…`."""
