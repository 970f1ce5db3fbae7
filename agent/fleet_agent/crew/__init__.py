"""The worker processes, as the front has them: one per device.

`crew.py` alone starts, ends and replaces them, `leak.py` (PURE) says when one has grown too much; `slot.py` is a
device and what it does now, `link.py` the process behind it, `vitals.py` how they all are.
"""
