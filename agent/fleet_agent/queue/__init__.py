"""What waits, what goes next, and how long it takes. All PURE: no I/O, no clock.

`batcher.py` forms batches (`batch.py` has its nouns, `forecast.py` says how long what waits will take); `curve.py`
knows what batches take, `cap.py` what the device's memory holds, `turns.py` who is next where models share a device,
`waits.py` how long requests waited, `capacity.py` what all that comes to in requests a second.
"""
