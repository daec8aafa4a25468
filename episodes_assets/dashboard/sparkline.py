"""A small line of numbers over time, as the coordinates of an SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 600
HEIGHT = 60


@dataclass(frozen=True)
class Sparkline:
    """The line, in a picture of `WIDTH` by `HEIGHT`.

    Attributes:
        line: Its points, as `polyline` wants them.
        area: The same with the ground below, as `polygon` wants them.
        top: The greatest number, which touches the upper edge.
        latest: The last number.
    """

    line: str
    area: str
    top: float
    latest: float


def draw(numbers: Sequence[float]) -> Sparkline:
    """Draw at least two numbers, none below 0, the oldest at the left."""
    top = max(numbers)
    step = WIDTH / (len(numbers) - 1)
    points = [
        f"{place * step:.1f},{HEIGHT - (HEIGHT - 2) * (number / top if top else 0):.1f}"
        for place, number in enumerate(numbers)
    ]
    line = " ".join(points)
    return Sparkline(line, f"0,{HEIGHT} {line} {WIDTH},{HEIGHT}", top, numbers[-1])
