"""Everything about SSH: which way, whose key, how to log in, and one shared connection per host."""
