"""Foresight: what `up` would change, host by host, before anything is done, and whether it still holds. PURE."""
