"""What the contract promises, over each kind of node."""
