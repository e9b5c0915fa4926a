"""A stand-in for the part of Kubernetes that AgentRuns live in: for development and quick tests only.

Real `kubectl` works with it. What it does not imitate it refuses with a Kubernetes Status.
"""

from offload.cluster.standin.resources import crd_file
from offload.cluster.standin.server import StandIn

__all__ = ["StandIn", "crd_file"]
