"""How much is measured: enough for figures, or just enough to see that the benchmark works."""

from dataclasses import dataclass

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, slots=True)
class Effort:
    """Pairs after the warm-up, seconds of each load, and whether all is cut short."""

    pairs: int = 5
    seconds: float = 4.0
    quick: bool = False

    def size(self, full: int) -> int:
        """Bytes of a large body."""
        return full // 16 if self.quick else full

    def count(self, full: int) -> int:
        """How many of something."""
        return max(1, full // 16) if self.quick else full

    def time(self, full: float) -> float:
        """Seconds of something that takes long by its nature."""
        return full / 10 if self.quick else full


QUICK = Effort(pairs=1, seconds=2.0, quick=True)
