"""Who keeps the agent running on a host, and ends it: systemd, a user's systemd, or a small program of ours.

`choice.py` says which; `systemd.py` and `plain.py` do it, with the same methods (`contract.py`); `unit.py` is the
unit's text; `program.py` is the small program.
"""
