"""Who brings requests and devices together, and gives each request its one answer.

`engine.py` has the requests; `pump.py` decides when devices are given work, `feeder.py` gives them batches and takes
them back, `outcome.py` reads what comes back, `stepper.py` does it for steps of generating, `condition.py` is how the
whole is.
"""
