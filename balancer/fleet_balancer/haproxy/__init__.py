"""engine: haproxy. The house decides as it does for the built-in engine; a real HAProxy carries the requests.

plane (what `life` drives) ties together: binary (which HAProxy), render (its configuration), process (its life), api
(its runtime API), slots and wanted (who stands where, and how), lines and rows (what it reports).
"""
