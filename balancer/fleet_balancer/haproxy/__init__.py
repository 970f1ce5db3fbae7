"""engine: haproxy. The house decides as it does for the built-in engine; a real HAProxy carries the requests.

plane (what `life` drives) ties together what HAProxy is told and what it tells. Told: orders, with render (its
configuration: plan, door, pools, section), maps, layout and slots (who stands where), standing and wanted (how),
addresses, certificate, folder. Its processes: lineage, process, launch, api, binary. What it tells: ledger, with rows
(its counts), tally and lines (its log); reports and welcome ask hosts themselves.
"""
