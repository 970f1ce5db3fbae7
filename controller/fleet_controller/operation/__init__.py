"""Operation: what one `fleetctl up` or `fleetctl down` may touch, how fast, and when it stops beginning anything.

PURE but for lock.py. The controller keeps the operation in the journal, so a controller that is killed goes on with the
same bounds.
"""

from fleet_controller.operation.operation import Bounds, Operation
from fleet_controller.operation.scope import Scope

__all__ = ["Bounds", "Operation", "Scope"]
