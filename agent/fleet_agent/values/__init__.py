"""What requests bring to models and get back, as arrays, in the front and in the worker alike (PURE): `payload.py`,
with `packed.py` for arrays that are still bytes, `tensors.py` for the Open Inference Protocol's types, `vectors.py` for
JSON numbers, `lengths.py` for what differs in length.
"""
