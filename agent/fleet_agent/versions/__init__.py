"""Which versions of which models are here, and which of them answers (`versions.py`, PURE).

`repository.py` alone loads, swaps and unloads them, by what `change.py` (PURE) says can be asked and `room.py`
(PURE) says fits; `stock.py` is how each of them is told of.
"""
