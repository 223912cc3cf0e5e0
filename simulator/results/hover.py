"""Figures as SVG whose marks tell their values: plots attach texts to what they draw, `to_svg` writes them in.

The SVG has a ``data-hover`` attribute on every such mark, which the report's page shows beside the pointer.
"""

import hashlib
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from planner.files.names import printable
from simulator.results.style import take_names_as_they_are, without_glyph_warnings

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
_TEXTS = "_hover_texts"
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # what XML does not allow

# Nothing refers to these ids, and they would repeat from figure to figure of a page.
UNUSED_IDS = ("figure_", "axes_", "patch_", "text_", "line2d_", "matplotlib.axis", "xtick", "ytick", "legend_", "Fill")


def attach(artist: Artist, texts: Sequence[str]) -> None:
    """Give an artist a text for each of its marks (of a line: its markers), or one for the whole."""
    setattr(artist, _TEXTS, tuple(map(printable, texts)))


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element to put into a page.

    Parameters
    ----------
    name
        Distinguishes the ids in it from those of other figures of the page; equal figures of one name give equal texts.
    """
    take_names_as_they_are(figure)
    marked = figure.findobj(lambda artist: hasattr(artist, _TEXTS))
    texts = {}
    for number, artist in enumerate(marked):
        artist.set_gid(f"hover-{number}")
        texts[f"hover-{number}"] = getattr(artist, _TEXTS)
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}), without_glyph_warnings():
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    # Names on axes are written into comments as they are.
    root = ET.fromstring(CONTROL.sub("\ufffd", text.getvalue()))
    prefix = hashlib.sha256(name.encode()).hexdigest()[:8]
    for element in root.iter():
        identity = element.get("id", "")
        if identity in texts:
            _mark(element, texts[identity])
        if identity in texts or identity.startswith(UNUSED_IDS):
            del element.attrib["id"]
        elif identity:
            element.set("id", f"{prefix}-{identity}")
        for key, value in element.items():
            if key == f"{{{XLINK}}}href" and value.startswith("#"):
                element.set(key, f"#{prefix}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}-"))
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    root.set("role", "img")
    root.set("aria-label", printable(name))
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    return ET.tostring(root, encoding="unicode")


def _mark(group: ET.Element, texts: Sequence[str]) -> None:
    """Write the texts onto the marks in a group: one on the group itself, several on its markers in order."""
    if len(texts) == 1:
        group.set("data-hover", texts[0])
        return
    for use, text in zip(group.iter(f"{{{SVG}}}use"), texts, strict=False):
        use.set("data-hover", text)
