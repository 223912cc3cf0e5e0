"""What all pictures share: colours, markers, how a figure is made and saved.

Colours are Okabe and Ito's (2008), told apart by colour-blind readers, and ordered so that neighbours differ in
lightness too; lines also differ in marker and dash, bars in hatching, so that a grey print can be read.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from planner.files.atomic import replacing
from planner.files.names import printable
from simulator.results.tables import as_cells

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 3)))
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo", "--")
INK, FAINT = "#333333", "#999999"

TITLE = 0.24  # inches that a title takes, below a legend

SCHEDULER_NAMES = {"pipelines": "pipelines", "np": "NP", "dart-r": "DART-r"}
SCHEDULER_ORDER = ("pipelines", "dart-r", "np", "reservation", "reactive")


def new_axes(width: float = 6.4, height: float = 4.0) -> Axes:
    """Return the axes of a new figure of that size in inches, without touching any global state."""
    axes: Axes = Figure(figsize=(width, height), layout="constrained").subplots()
    return axes


def figure_of(ax: Axes) -> Figure:
    """Return the figure that axes belong to."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure


def finish(ax: Axes, *, x: str = "", y: str = "", title: str = "") -> Axes:
    """Label axes, draw a quiet grid behind the data, and leave out the frame's upper and right sides."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, fontsize=10, loc="left", color=INK)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=INK, labelsize=9)
    return ax


def legend(ax: Axes) -> None:
    """Put the legend above the axes, where it hides nothing, in as many columns as fit."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        room = ax.get_position().width * figure_of(ax).get_size_inches()[0] * 15  # characters of 9 points
        columns = int(room / (max(map(len, labels)) + 6))
        height = ax.get_position().height * float(figure_of(ax).get_size_inches()[1])
        ax.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0, 1.0 + (TITLE / height if ax.get_title(loc="left") else 0)),
            ncols=max(1, min(len(labels), columns)),
            frameon=False,
            fontsize=9,
            borderaxespad=0.2,
            handlelength=2.6,
        )


def in_order(values: Iterable[Any], first: Sequence[Any] = SCHEDULER_ORDER) -> list[Any]:
    """Return distinct values, those of ``first`` in its order, then the others sorted.

    >>> in_order(["np", "b", "pipelines", "a", "np"])
    ['pipelines', 'np', 'a', 'b']
    """
    found = set(values)
    return [value for value in first if value in found] + sorted(found - set(first))


def short(name: object, length: int = 26) -> str:
    """Return a name as labels show it: schedulers as they are written, long names cut.

    >>> short("np"), short("efficientnet-b8_3rdparty_8xb32-aa-advprop_in1k")
    ('NP', 'efficientnet-b8_3rdparty_…')
    """
    text = SCHEDULER_NAMES.get(str(name), str(name))
    return text if len(text) <= length else text[: length - 1] + "…"


def take_names_as_they_are(figure: Figure) -> None:
    """Let no text of a figure be taken for mathematics or hold control characters: names may hold anything.

    Numbers that matplotlib itself writes as mathematics (powers of ten) stay.
    """
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_ticklabels()  # makes the labels that drawing would make
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        written = text.get_text()
        if not written.startswith("$\\mathdefault{"):
            text.set_parse_math(False)
            text.set_text(_plain(written))


def _plain(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Draw letters that the font lacks as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def save_figure(figure: Figure | Axes, path: Path) -> None:
    """Write a picture in one step; its suffix says which kind (png, pdf, svg). Equal pictures are equal files."""
    drawn = figure if isinstance(figure, Figure) else figure_of(figure)
    take_names_as_they_are(drawn)
    dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with replacing(path) as temporary, without_glyph_warnings():
        drawn.savefig(temporary, dpi=200, metadata=dates.get(path.suffix))


def save_with_numbers(figure: Figure, numbers: pd.DataFrame, stem: Path) -> None:
    """Write a figure as PNG and PDF, and the numbers behind it as CSV beside them."""
    for suffix in (".png", ".pdf"):
        save_figure(figure, stem.with_name(stem.name + suffix))
    with replacing(stem.with_name(stem.name + ".csv")) as temporary:
        as_cells(numbers).to_csv(temporary, index=False)
