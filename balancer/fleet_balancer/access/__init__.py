"""Who may come in: API keys and TLS."""
