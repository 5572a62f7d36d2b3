"""The picture of docs/how-it-works.md: rows per second, and where a row's processor time goes."""

from xml.sax.saxutils import escape

from benchmarks.results import ROW, Results

WIDTH, ROW_HEIGHT, LEFT, BAR = 940, 40, 320, 250
COLOURS = {"proxy": "#4c78a8", "api": "#f58518", "db": "#54a24b", "rest": "#b0b0b0"}
STYLE = "font-family='system-ui, sans-serif' font-size='12' fill='#24292f'"


def svg(results: Results) -> str:
    """Draw two bars for each peer."""
    rates = {peer: results.median(peer, ROW) or 0.0 for peer in results.peers}
    splits = {peer: results.split(peer) for peer in results.peers}
    most = max(rates.values())
    dearest = max(sum(split.values()) for split in splits.values())
    second = LEFT + BAR + 70
    parts = [
        _text(LEFT, 24, "row reads per second"),
        _text(second, 24, "CPU µs per read: "),
    ]
    for number, (name, colour) in enumerate(COLOURS.items()):
        parts.append(_text(second + 112 + number * 38, 24, name, colour))
    for number, (peer, rate) in enumerate(rates.items()):
        y = 40 + number * ROW_HEIGHT
        colour = "#4c78a8" if peer.name == "berth" else "#b7c9de"
        parts.append(_text(8, y + 17, peer.title))
        parts.append(_bar(LEFT, y, rate / most * BAR, colour))
        parts.append(_text(LEFT + rate / most * BAR + 6, y + 17, f"{rate:,.0f}"))
        x: float = second
        for name, spent in splits[peer].items():
            parts.append(_bar(x, y, spent / dearest * (WIDTH - second - 60), COLOURS[name]))
            x += spent / dearest * (WIDTH - second - 60)
        parts.append(_text(x + 6, y + 17, f"{sum(splits[peer].values()):,.0f}"))
    height = 48 + len(rates) * ROW_HEIGHT
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' {STYLE}>\n"
        f"<rect width='{WIDTH}' height='{height}' fill='#ffffff'/>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, colour: str = "#24292f") -> str:
    return f"<text x='{x:.0f}' y='{y:.0f}' fill='{colour}'>{escape(text)}</text>"


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return f"<rect x='{x:.1f}' y='{y:.0f}' width='{width:.1f}' height='24' fill='{colour}'/>"
