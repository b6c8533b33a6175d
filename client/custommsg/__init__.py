"""The client of the custommsg gateway: `custommsg.aio` and `custommsg.sync`."""
