"""Matplotlib figures as inline SVG: colours from the page's CSS, unique ids, reproducible bytes."""

import io
import re

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

THEME = {
    "#000000": "--ink",
    "#ffffff": "--paper",
    "#b0b0b0": "--grid",
    "#cccccc": "--grid",
    "#444444": "--line",
    "#777777": "--grey",
    "#888888": "--grey",
    "#1f77b4": "--blue",
    "#d62728": "--red",
    "#2ca02c": "--green",
    "#9467bd": "--purple",
    "#c45f00": "--orange",
    "#9ecae1": "--bar",
    "#08306b": "--point",
}
"""The CSS variable that replaces each colour; the page defines them for its light and its dark theme."""


def inline_svg(figure: Figure, key: str, label: str) -> Markup:
    """The figure as one <svg> element with a transparent background.

    `key` prefixes all of its ids, so a page can hold figures with different keys. `label` is read by screen readers.
    Text stays text; the colours in `THEME` become CSS variables.
    """
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": key, "svg.fonttype": "none", "text.parse_math": False}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # matplotlib's styles would apply to the whole page
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\bid=\"", f'id="{key}-', svg)
    svg = re.sub(r"(url\(|xlink:href=\")#", rf"\g<1>#{key}-", svg)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda found: _themed(found[0]), svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    svg = svg[svg.index(">") + 1 :]
    head = Markup('<svg class="chart" role="img" aria-label="{}" {}>').format(escape(label), Markup(view[0]))
    return head + Markup(re.sub(r"\n\s*", "\n", svg).strip())


def _themed(colour: str) -> str:
    return f"var({THEME[colour]})" if colour in THEME else colour
