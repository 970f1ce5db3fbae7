"""What answers say about hosts, and what follows: ejection, retries, second copies. PURE."""
