"""What is told about requests: counts, metrics, the access log."""
