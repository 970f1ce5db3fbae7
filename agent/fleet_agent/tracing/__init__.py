"""Spans of OpenTelemetry: whether they are wanted (`wish.py`, which imports nothing of it) and how they are made."""
