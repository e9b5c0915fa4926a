"""External artifact service for AgentRuns."""

__version__ = "0.1.0"
