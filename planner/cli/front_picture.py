"""The picture of a front: what each plan gives over what it takes."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from planner.files import replacing

COLOUR, INK, GRID = "#0072B2", "#333333", "#DDDDDD"  # a blue of Okabe and Ito (2008)


def draw_front(paid: Sequence[float], given: Sequence[float], labels: tuple[str, str], path: Path) -> None:
    """Draw plans as points on a staircase: between two of them the cheaper one is the best known.

    Parameters
    ----------
    paid, given
        ``[plan]``, growing.
    labels
        Of both axes.
    path
        File to write, its suffix a format that matplotlib knows.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    ax = figure.subplots()
    ax.step(paid, given, where="post", color=COLOUR, linewidth=1.2, alpha=0.6)
    ax.plot(paid, given, "o", color=COLOUR, markersize=5)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=INK, labelsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
