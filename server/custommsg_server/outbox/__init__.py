"""Messages that wait for their peers, and what became of them."""
