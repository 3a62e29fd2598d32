"""Plots as inline SVG: no script, no font, no file of anybody else's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 15, 15, 40


@dataclass(frozen=True, slots=True)
class Axis:
    """Numbers along one side of a plot; `log` spaces equal ratios equally."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """From 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round numbers from end to end."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [v for p in powers for m in (1, 2, 5) if self.low <= (v := m * 10.0**p) <= self.high]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        return [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def bars(x: Axis, y: Axis, columns: Sequence[tuple[float, float, Sequence[tuple[str, float]]]]) -> str:
    """Columns of stacked parts: from, to, and the style class and height of each part, from the bottom up."""
    parts = []
    for start, end, stack in columns:
        base = y.low
        left, right = _x(x, start), _x(x, end)
        for style, height in stack:
            top = _y(y, base + height)
            width, high = max(0.5, right - left - 1), _y(y, base) - top
            parts.append(
                f'<rect class="{style}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{high:.1f}"/>'
            )
            base += height
    return _frame(x, y, parts)


def line(x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> str:
    """One line through all points."""
    corners = " ".join(f"{_x(x, across):.1f},{_y(y, up):.1f}" for across, up in points)
    return _frame(x, y, [f'<polyline class="line" points="{corners}"/>'])


def dots(x: Axis, y: Axis, points: Sequence[tuple[float, float, str]]) -> str:
    """A dot of a style class for each point."""
    parts = [
        f'<circle class="{style}" cx="{_x(x, across):.1f}" cy="{_y(y, up):.1f}" r="1.6"/>'
        for across, up, style in points
    ]
    return _frame(x, y, parts)


def _frame(x: Axis, y: Axis, parts: Sequence[str]) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    lines = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(y.label)} over {escape(x.label)}">']
    for value in y.ticks():
        up = _y(y, value)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{up:.1f}" y2="{up:.1f}"/>')
        lines.append(f'<text class="end" x="{_LEFT - 6}" y="{up + 4:.1f}">{value:g}</text>')
    lines += [f'<text class="middle" x="{_x(x, at):.1f}" y="{bottom + 16}">{at:g}</text>' for at in x.ticks()]
    lines += parts
    middle = (_LEFT + right) / 2
    lines.append(f'<text class="middle" x="{middle}" y="{_HEIGHT - 6}">{escape(x.label)}</text>')
    lines.append(f'<text class="middle" transform="translate(14 {bottom / 2}) rotate(-90)">{escape(y.label)}</text>')
    return "\n".join([*lines, "</svg>"])


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
