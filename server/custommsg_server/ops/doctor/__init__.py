"""`custommsg-server doctor`: finds what keeps a gateway from working, and says what to do."""
