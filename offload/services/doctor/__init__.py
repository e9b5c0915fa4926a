"""Find out what works and what does not, with a remedy for each: the checks, and how they are made."""

from offload.services.doctor.findings import Check, Finding, State, examine, is_broken

__all__ = ["Check", "Finding", "State", "examine", "is_broken"]
