"""Plots as inline SVG: they need no script, take the page's colours and scale with its width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44
TICKS = 5


@dataclass(frozen=True)
class Line:
    """A line through (x, y) points; `kind` is the class that colours it."""

    points: Sequence[tuple[float, float]]
    kind: str = "main"
    name: str = ""


@dataclass(frozen=True)
class Frame:
    """The area of a plot: what its axes mean and where they end; both start at 0."""

    x_name: str
    y_name: str
    x_end: float = 1.0
    y_end: float = 1.0
    as_percent: bool = True

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies, in pixels."""
        across = min(max(x / self.x_end, 0.0), 1.0) if self.x_end else 0.0
        up = min(max(y / self.y_end, 0.0), 1.0) if self.y_end else 0.0
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )


def curves(
    frame: Frame,
    lines: Sequence[Line],
    *,
    band: Sequence[tuple[float, float, float]] = (),
    label: str = "",
) -> str:
    """Return lines in a frame; `band` holds (x, low, high) of an interval around the first."""
    parts = [_axes(frame)]
    if band:
        there = [frame.at(x, high) for x, _, high in band]
        back = [frame.at(x, low) for x, low, _ in reversed(band)]
        parts.append(f'<polygon class="band" points="{_points([*there, *back])}"/>')
    for line in lines:
        points = _points([frame.at(x, y) for x, y in line.points])
        title = f"<title>{escape(line.name)}</title>" if line.name else ""
        parts.append(f'<polyline class="{line.kind}" points="{points}">{title}</polyline>')
    return _svg(parts, label)


def reliability(
    bins: Sequence[tuple[float, float, int]], *, label: str = "", name: str = "right"
) -> str:
    """Return a reliability diagram of (mean confidence, share that was right, how many).

    A dot on the diagonal is calibrated; its area grows with the number of cases.
    """
    frame = Frame("confidence", f"share that is {name}")
    most = max((count for _, _, count in bins), default=1)
    parts = [_axes(frame), _segment(frame.at(0, 0), frame.at(1, 1), "reference")]
    for confidence, right, count in bins:
        x, y = frame.at(confidence, right)
        parts.append(_segment(frame.at(confidence, confidence), (x, y), "gap"))
        told = f"confidence {confidence:.2f}, {name} {right:.2f}, {count} cases"
        size = round(4 + 8 * (count / most) ** 0.5, 1)
        parts.append(
            f'<circle class="dot" cx="{x}" cy="{y}" r="{size}"><title>{told}</title></circle>'
        )
    return _svg(parts, label)


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Return the legend of (kind, name) pairs."""
    items = "".join(
        f'<span class="key"><i class="swatch {kind}"></i>{escape(name)}</span>'
        for kind, name in entries
    )
    return f'<p class="legend">{items}</p>'


def _axes(frame: Frame) -> str:
    parts: list[str] = []
    for step in range(TICKS + 1):
        x, y = frame.x_end * step / TICKS, frame.y_end * step / TICKS
        across, up = frame.at(x, 0), frame.at(0, y)
        parts.append(_segment(up, frame.at(frame.x_end, y), "grid"))
        parts.append(_text(across[0], HEIGHT - BOTTOM + 18, _number(x, frame), "middle"))
        parts.append(_text(LEFT - 8, up[1] + 4, _number(y, frame), "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, frame.x_name, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="tick" text-anchor="middle" transform="translate(12 {middle}) rotate(-90)">'
        f"{escape(frame.y_name)}</text>"
    )
    return "".join(parts)


def _number(value: float, frame: Frame) -> str:
    return f"{100 * value:.3g}%" if frame.as_percent else f"{value:.3g}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _segment(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    return f'<line class="{kind}" x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"/>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _svg(parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
