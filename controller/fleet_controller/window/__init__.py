from fleet_controller.window.window import (
    ARRIVALS_S,
    CAPACITY_MIN_UTILIZATION,
    CAPACITY_TAU_S,
    OLD_S,
    SETTLE_S,
    UTILIZATION_S,
    HostSample,
    Learned,
    PoolSample,
    Signal,
    Window,
)

__all__ = [
    "ARRIVALS_S",
    "CAPACITY_MIN_UTILIZATION",
    "CAPACITY_TAU_S",
    "OLD_S",
    "SETTLE_S",
    "UTILIZATION_S",
    "HostSample",
    "Learned",
    "PoolSample",
    "Signal",
    "Window",
]
