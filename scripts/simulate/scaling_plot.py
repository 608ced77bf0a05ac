"""Wall time by number of actors as an SVG, a panel a net, both axes logarithmic.

By hand: three polylines in a frame are no reason for a dependency.
"""

from collections.abc import Mapping, Sequence
from math import ceil, floor, log2, log10

WIDTH, HEIGHT, LEFT, TOP = 340, 260, 60, 40  # of a panel, and its margins
COLORS = ("#1f5fa8", "#999999", "#c8551b")


def plot(actors: Sequence[int], panels: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """By title of a panel and by name of a curve: the seconds on each number of `actors`."""
    body = [_panel(i, title, actors, curves) for i, (title, curves) in enumerate(panels.items())]
    width, height = len(panels) * (WIDTH + LEFT) + 20, HEIGHT + 2 * TOP + 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="11">', '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>\n"])


def _panel(place: int, title: str, actors: Sequence[int], curves: Mapping[str, Sequence[float]]) -> str:
    left = place * (WIDTH + LEFT) + LEFT
    values = [value for curve in curves.values() for value in curve]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))

    def x(n: int) -> float:
        return round(left + 10 + (WIDTH - 40) * log2(n) / log2(max(actors)), 1)

    def y(seconds: float) -> float:
        return round(TOP + HEIGHT * (1 - (log10(seconds) - low) / (high - low)), 1)

    bottom, right = TOP + HEIGHT, left + WIDTH - 20
    found = [f'<text x="{left}" y="{TOP - 14}" font-weight="bold">{title}: seconds of a search by actors</text>']
    for power in range(low, high + 1):
        found.append(f'<path d="M{left} {y(10**power)}H{right}" stroke="#dddddd"/>')
        found.append(f'<text x="{left - 6}" y="{y(10**power) + 4}" text-anchor="end">{10**power:,}</text>')
    for n in actors:
        found.append(f'<path d="M{x(n)} {bottom}v4" stroke="black"/>')
        found.append(f'<text x="{x(n)}" y="{bottom + 18}" text-anchor="middle">{n:,}</text>')
    found.append(f'<path d="M{left} {TOP}V{bottom}H{right}" fill="none" stroke="black"/>')
    for i, ((name, curve), color) in enumerate(zip(curves.items(), COLORS, strict=False)):
        points = " ".join(f"{x(n)},{y(seconds)}" for n, seconds in zip(actors, curve, strict=True))
        found.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        found.append(f'<path d="M{right - 130} {TOP + 12 + 16 * i}h20" stroke="{color}" stroke-width="2"/>')
        found.append(f'<text x="{right - 104}" y="{TOP + 16 + 16 * i}">{name}</text>')
    return "\n".join(found)
