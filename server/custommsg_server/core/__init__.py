"""What happens to a message: on its way out, and on its way in."""
