"""Figures from measurements: medians, ratios pair by pair, and how far they lie apart. No I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypeVar

from bench.goals import GOALS

T = TypeVar("T")

Spread = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """One figure of one row, as `bench/results/latest.json` has it.

    `spread` is the lowest and the highest ratio of a pair, without a peer the lowest and the highest value.
    """

    name: str
    ours: float
    peer: float | None
    peer_name: str | None
    ratio: float | None
    spread: Spread | None
    config: Mapping[str, Any]

    @property
    def met(self) -> bool:
        """Whether the goal is: that of the ratio where there is a peer, else that of our own value."""
        return GOALS[self.name].holds(self.ours if self.ratio is None else self.ratio)

    def with_config(self, **more: Any) -> "Figure":
        """The same, with more said of how it was measured."""
        return replace(self, config={**self.config, **more})

    def as_json(self) -> dict[str, Any]:
        """In the shape of the file; figures to four digits."""
        goal = GOALS[self.name]
        return {
            "name": self.name,
            "ours": _rounded(self.ours),
            "peer": _rounded(self.peer),
            "peer_name": self.peer_name,
            "ratio": _rounded(self.ratio),
            "goal": goal.number,
            "met": self.met,
            "unit": goal.unit,
            "spread": None if self.spread is None else [_rounded(end) for end in self.spread],
            "config": dict(self.config),
        }


def compared(
    name: str, ours: Sequence[float], peers: Sequence[float], peer_name: str, **config: Any
) -> Figure:
    """Two sides that were measured in turn: the n-th of `ours` just before the n-th of `peers`.

    The config tells the noise: how far the peer's own values lie apart, the highest over the lowest.
    """
    ratios = [one / other for one, other in zip(ours, peers, strict=True)]
    return Figure(
        name=name,
        ours=median(ours),
        peer=median(peers),
        peer_name=peer_name,
        ratio=median(ratios),
        spread=(min(ratios), max(ratios)),
        config={"pairs": len(ratios), **config, "peer_spread": _rounded(max(peers) / min(peers))},
    )


def alone(name: str, values: Sequence[float], **config: Any) -> Figure:
    """One that has no peer, measured as often as there are values."""
    return Figure(
        name=name,
        ours=median(values),
        peer=None,
        peer_name=None,
        ratio=None,
        spread=(min(values), max(values)) if len(values) > 1 else None,
        config={"times": len(values), **config},
    )


def in_turn(sides: Mapping[str, Callable[[str], T]], rounds: int) -> dict[str, list[T]]:
    """Measure all sides once for warming up, then in turn, A B A B …; each is told a word of its own."""
    measured: dict[str, list[T]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, measure in sides.items():
            value = measure(f"{side}-{number}")
            if number:
                measured[side].append(value)
    return measured


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
