"""The nouns that the engine, its crew and the protocols share: a version of a model (`served.py`), where it stands
(`stage.py`, PURE), what it turned out to be (`traits.py`), what is counted of it (`counters.py`, kept by
`ledger.py`), a request for it (`ticket.py`), and the answer (`answer.py`).
"""
