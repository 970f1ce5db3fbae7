"""The admin address: what may be asked and changed."""
