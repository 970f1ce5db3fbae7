"""What the keeper can be asked for: a file an errand, `errand(args)` answers it."""
