"""What a request of the benchmark carries, and how many may go together.

Apart from models.py, so that the load needs no torch.
"""

SIZE = 256  # float32 numbers

# Instances a batch at most, for every server alike. The bare loop is best at 64 on the medium model.
MAX_BATCH = {"small": 32, "medium": 64, "long": 32}
