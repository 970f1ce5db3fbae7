"""sushy-tools' Redfish emulator with its fake system, whose orders take effect in a second, not up to eleven."""

from __future__ import annotations

import random
import sys

from sushy_tools.emulator.main import main

random.randint = lambda low, high: min(1, high)  # type: ignore[assignment]
sys.exit(main())
