"""The device that a worker computes on, as the front sees it: what it holds, how it is, whether it can be trusted."""
