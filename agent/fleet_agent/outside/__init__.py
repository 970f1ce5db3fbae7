"""Outside engines as models (`runtime: command`): any HTTP inference server, started, watched and proxied by the agent.

`engines.py` holds them all and says whose a call is; `engine.py` is one of them, kept alive; `relay.py` takes one call
there and back. `warden.py` is the process between the agent and an engine that leaves nothing behind. What is decided
is in the PURE files: `life.py` (may it take calls, is it dead), `gate.py` (who may go in), `route.py` (whose is a call,
which headers go on), `order.py` (the command as it is run), `words.py` (its log lines), `figures.py` (its metrics).
"""
