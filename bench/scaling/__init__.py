"""Autoscalers on real traffic: `make bench-scaling`."""
