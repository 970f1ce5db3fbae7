"""The agent against the bare torch loop and its peers, side by side in one run. `python -m bench.agent`."""
