"""What a request of the benchmark carries. Apart from models.py, so that the load needs no torch."""

SIZE = 256  # float32 numbers
