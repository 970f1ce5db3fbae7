"""Requests that wait for a host: who may, in which order, and how long that will take. PURE."""
