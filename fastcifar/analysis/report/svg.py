"""Figures as SVG to stand inside an HTML page: colours from its CSS, ids of their own, the same bytes every time."""

import io
import re
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
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
"""The CSS variable that takes the place of each colour; a page defines them, once for light and once for dark."""


def inline_svg(figure: "Figure", key: str, label: str) -> Markup:
    """The figure as one <svg> element without background.

    `key` comes before all of its ids, so figures of different keys can share a page; `label` is what a screen reader
    says. Text stays text; black and the other colours of `THEME` become the page's.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": key, "svg.fonttype": "none", "text.parse_math": False}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)  # a page's styles are its own
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
