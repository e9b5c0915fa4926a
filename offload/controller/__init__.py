"""The controller: loops in threads that follow the cluster, publish, and run leased jobs."""

from offload.controller.controller import Controller
from offload.controller.jobs import Job

__all__ = ["Controller", "Job"]
