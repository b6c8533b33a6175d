"""What peers sent, kept until its retention ends, and fed to subscribers."""
