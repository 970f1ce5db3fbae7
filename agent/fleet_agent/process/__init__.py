"""What this process was told, where it listens, and where it logs."""
