"""One HTTP call, without a framework: how its head and body are read, what its headers mean, what a refusal looks
like.
"""
