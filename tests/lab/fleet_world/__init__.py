"""A world in which a whole controller runs: its own time, threads, network, hosts, balancer and journal.

Everything in it follows from one seed, so that a run can be had again. What decides and acts is the real code (Loop,
Autoscaler, plan, Actuator, Inspector, Doorkeeper); what it meets is made here.
"""
