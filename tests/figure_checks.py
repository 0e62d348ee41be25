"""What several files of figure tests check of every figure."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def words_of(figure: Figure) -> str:
    """All visible text of a figure, a line each."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def lies_on_the_page(figure: Figure, name: str) -> None:
    """Fail where anything drawn lies off the page by more than 0.02 inches."""
    inked = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())  # inches
    width, height = figure.get_size_inches()
    assert inked.x0 > -0.02, name
    assert inked.y0 > -0.02, name
    assert inked.x1 < width + 0.02, name
    assert inked.y1 < height + 0.02, name
