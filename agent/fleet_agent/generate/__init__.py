"""Text that comes piece by piece: which sequences take part in a step, and what becomes of the pieces."""
