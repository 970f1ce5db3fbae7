"""The nouns that the engine, its crew and the protocols share: a version of a model and a request for it (`served.py`),
where a version stands (`stage.py`, PURE), what it turned out to be (`traits.py`), what is counted of it (`counters.py`,
kept by `ledger.py`), and an answer (`answer.py`).
"""
