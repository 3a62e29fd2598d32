"""The report as one HTML file: styles and plots are in it, and nothing is loaded from anywhere."""

from collections.abc import Mapping, Sequence
from html import escape

from service.bench.plots import Axis, bars, dots, line
from service.bench.samples import Fate, Figures, Sample, histogram

_MOST_DOTS = 2000
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #8884; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; font-size: 11px; }
text { fill: currentColor; } .middle { text-anchor: middle; } .end { text-anchor: end; }
.grid { stroke: #8884; } .line { fill: none; stroke: #2a78c2; stroke-width: 2; }
.answered { fill: #2a78c2; } .refused { fill: #e0a030; } .failed { fill: #c43c3c; }
"""


def page_of(figures: Figures, facts: Mapping[str, str]) -> str:
    """The whole document.

    Args:
        figures: of the run.
        facts: how it was made, for the table on top.
    """
    body = [
        "<h1>patchserve bench</h1>",
        _table(facts),
        f"<h2>{figures.answers_per_s:.1f} answers/s</h2>",
        _table(_counts(figures), "number"),
        "<h2>Latency of answers</h2>",
        _table(_latencies(figures), "number"),
        *_latency_plots(figures),
        "<h2>Over time</h2>",
        _legend(),
        _over_time(figures),
        _latency_over_time(figures),
    ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width"><title>patchserve bench</title>',
            f"<style>{_STYLE}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def _table(rows: Mapping[str, str], style: str = "") -> str:
    cells = [
        f'<tr><th>{escape(name)}</th><td class="{style}">{escape(value)}</td></tr>' for name, value in rows.items()
    ]
    return f"<table>{''.join(cells)}</table>"


def _counts(figures: Figures) -> dict[str, str]:
    counts = {str(fate): str(figures.count(fate)) for fate in Fate}
    reasons = figures.reasons(Fate.REFUSED) + figures.reasons(Fate.FAILED)
    late = {"sent later than due, p99, by this program": f"{figures.lateness_ms():.1f} ms"}
    return counts | {reason: str(count) for reason, count in reasons.most_common()} | late


def _latencies(figures: Figures) -> dict[str, str]:
    rows = {f"p{100 * share:g}": f"{value:.1f} ms" for share, value in figures.percentiles_ms().items()}
    if len(figures.latencies_s):
        rows["longest"] = f"{1000 * figures.latencies_s[-1]:.1f} ms"
    return rows or {"answers": "none"}


def _latency_plots(figures: Figures) -> list[str]:
    rows = histogram(figures.latencies_s, bins=40)
    if not rows:
        return []
    across = Axis("milliseconds", rows[0][0], rows[-1][1], log=True)
    up = Axis("answers", 0, max(count for _, _, count in rows))
    return [bars(across, up, [(low, high, [("answered", count)]) for low, high, count in rows]), _curve(figures)]


def _curve(figures: Figures) -> str:
    """Latency against one answer in so many: the tail gets as much room as the middle."""
    latencies = figures.latencies_s
    count = len(latencies)
    ranks = sorted({round(count * (1 - 10 ** (-step / 20))) for step in range(140)} & set(range(count)))
    points = [(count / (count - rank), 1000 * float(latencies[rank])) for rank in ranks]
    across = Axis("one answer in so many is slower", 1, max(10, count), log=True)
    return line(across, Axis("milliseconds", 0, max(value for _, value in points) or 1), points)


def _legend() -> str:
    squares = [
        f'<svg viewBox="0 0 9 9" style="width:9px"><rect class="{fate}" width="9" height="9"/></svg>' for fate in Fate
    ]
    return f"<p>{' &nbsp; '.join(f'{square} {fate}' for square, fate in zip(squares, Fate, strict=True))}</p>"


def _over_time(figures: Figures) -> str:
    rows = figures.per_second()
    up = Axis("requests per second", 0, max(1, *(sum(row.values()) for row in rows)))
    columns = [(second, second + 1, [(str(fate), row[fate]) for fate in Fate]) for second, row in enumerate(rows)]
    return bars(Axis("second in which they were due", 0, len(rows)), up, columns)


def _latency_over_time(figures: Figures) -> str:
    chosen = _thinned(figures.samples)
    if not chosen:
        return ""
    across = Axis("second in which they were due", 0, figures.end_s - figures.begin_s)
    up = Axis("milliseconds to the end", 0, max(1000 * each.latency_s for each in chosen) or 1)
    points = [(each.due_s - figures.begin_s, 1000 * each.latency_s, str(each.fate)) for each in chosen]
    note = f"<p>{len(chosen)} of {len(figures.samples)} requests.</p>" if len(chosen) < len(figures.samples) else ""
    return dots(across, up, points) + note


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Some of them, evenly: the file stays small."""
    return samples[:: -(-len(samples) // _MOST_DOTS)] if samples else samples
