"""What is measured and what it is measured against, each a process of its own.

Each prints its address on a line of its own when it is ready, and runs until it is told to end.
"""
