"""Other autoscalers' policies, one a file, each with its formula and its source: what they decide from what they see.

Faithful in formula, window, delay, bound and how often it looks; not in transport (no metrics pipeline's lag beyond
the windows named).
"""

from bench.scaling.peers.aws import PredictiveScaling, StepScaling, TargetTracking
from bench.scaling.peers.dstack import Dstack
from bench.scaling.peers.hpa import Hpa
from bench.scaling.peers.knative import Knative
from bench.scaling.peers.look import Growth, Look, Peer
from bench.scaling.peers.ray_serve import RayServe
from bench.scaling.peers.skyserve import SkyServe
from bench.scaling.peers.static import StaticPeak

__all__ = [
    "Dstack", "Growth", "Hpa", "Knative", "Look", "Peer", "PredictiveScaling", "RayServe", "SkyServe", "StaticPeak",
    "StepScaling", "TargetTracking",
]  # fmt: skip
