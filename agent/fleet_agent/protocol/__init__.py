"""The languages of the calls to models: which bytes ask for what, and how the answer is said.

`inference.py` finds the one that is spoken (KServe V1, OpenAI embeddings) and reads it into an `asked.py`;
`tensorcall.py` is the Open Inference Protocol, `raw.py` bodies that are bare numbers, `completions.py` OpenAI's
chat. Nothing here waits.
"""
