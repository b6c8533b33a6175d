"""Builders and stand-ins for tests."""
