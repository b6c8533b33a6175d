"""Small real Lightning nodes for tests, and a custommsg gateway on one."""
