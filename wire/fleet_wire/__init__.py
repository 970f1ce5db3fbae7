"""What travels between the places of a fleet: messages, the latency histogram, refusals. Imports nothing of ours."""
