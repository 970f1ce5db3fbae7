"""A real run of a small fleet beside its simulation: do both decide and answer alike?"""
