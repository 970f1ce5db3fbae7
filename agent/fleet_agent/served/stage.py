"""Where a version stands between being asked for and being gone. PURE."""

from __future__ import annotations

from typing import Literal

# coming: is being loaded. answering: requests for the name are its own. kept: only requests that name the version are.
# leaving: finishes what it has. gone: is to be unloaded, or is.
Stage = Literal["coming", "answering", "kept", "leaving", "gone"]
