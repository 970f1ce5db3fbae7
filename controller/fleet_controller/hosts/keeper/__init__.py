"""What is done on the host itself: look, unpack, start, stop, tail. Sent as text to `python3 -I -S -` (parcel.py).

Runs alone: standard library only, Python 3.8 or newer, Linux; os.path all through, because importing pathlib costs
each start on a host 10 ms. Of these files only those go that an errand imports, so each says at its top what it needs.
Answers are lines that begin with the caller's nonce, so that whatever else a login writes does no harm.
"""
