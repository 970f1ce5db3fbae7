"""Doctor: what is wrong with this machine and with the hosts, why that matters, and what mends it.

visit.py and desk.py look (I/O); subjects/ judge what they saw (PURE, one file a subject); rounds.py does all of it.
"""
