"""Who brings requests and devices together, and gives each request its one answer.

`engine.py` has the requests; `pump.py` decides when devices are given work, `feeding.py` gives a batch to one,
`outcome.py` reads what comes back, `stepper.py` does both for steps of generating, `condition.py` is how the whole
is.
"""
