"""One host as the balancer knows it: its counts, its health, its breaker, what it says of its load. PURE."""
