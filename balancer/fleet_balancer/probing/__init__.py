"""Asking hosts whether they are ready."""
