"""`custommsg-server doctor`: what keeps a gateway from working, and what to do."""
