"""A section that a caller adds to a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, a paragraph, a table and charts; stands after the result."""

    key: str
    """Its id in the page, which no other section may have."""
    title: str
    text: str
    caption: str
    """What the table shows."""
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    charts: Mapping[str, Figure] = field(default_factory=dict)
    """Figures by caption. Their size decides how large their text is: see `charts.SIZE`."""
