"""The page and the console output for questions about one picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from markupsafe import Markup
from PIL import Image
from rich.style import Style
from rich.table import Table
from rich.text import Text

import vsre
from vsre.diagnose.one_picture import OneQuestion
from vsre.files import write_aside
from vsre.report.page import environment, style_sheet
from vsre.sources.images import load_image

TITLES = {
    "blank": "a grey picture",
    "mirror": "the mirrored picture",
    "mirror-swap": "mirrored, left and right exchanged",
    "swap": "subject and object exchanged",
    "inverse": "the same from the other side",
    "opposite": "the opposite",
    "negated": "the denial",
}
_LARGEST = 720


def word(reading: bool | None) -> str:
    return {True: "yes", False: "no", None: "undecided"}[reading]


def _css_of(reading: bool | None) -> str:
    return {True: "yes", False: "no", None: "unread"}[reading]


def write_page(out: Path, picture: Path, data: bytes, name: str, questions: Sequence[OneQuestion]) -> Path:
    """Write one self-contained HTML file; the picture is re-encoded for it, at most 720 pixels wide and high."""
    image = load_image(data)
    image.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    page = (
        environment()
        .get_template("ask.html.j2")
        .render(
            css=Markup(style_sheet()),
            name=name,
            picture_name=picture.name,
            picture=Markup("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()),
            questions=questions,
            titles=TITLES,
            word=word,
            css_of=_css_of,
            version=vsre.__version__,
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_aside(out, page.encode("utf-8", "replace"))
    return out


def thumbnail(data: bytes, width: int = 48) -> Text:
    """Render the picture for a terminal: two pixels per character, one above the other."""
    image: Image.Image = load_image(data)
    height = max(2, round(width * image.height / image.width) // 2 * 2)
    pixels = image.resize((width, height), Image.Resampling.BOX).load()
    assert pixels is not None
    shown = Text()
    for y in range(0, height, 2):
        for x in range(width):
            upper, lower = ("#{:02x}{:02x}{:02x}".format(*pixels[x, y + k]) for k in (0, 1))  # type: ignore[misc]
            shown.append("▀", Style(color=upper, bgcolor=lower))
        shown.append("\n")
    return shown


def summary(one: OneQuestion) -> Text:
    """ "Is the cat left of the dog?  yes, in 82 % of 50 wordings (mean p(yes) 0.74)" """
    line = Text(one.question + "  ", style="bold")
    if one.statement is None:
        line.append(one.answers[0].text)
    else:
        line.append(word(one.says), style="bold green" if one.says else "bold magenta")
        if one.agreement is not None:
            unread = sum(a.reading is None for a in one.answers)
            line.append(f", in {100 * one.agreement:.0f} % of {len(one.answers)} wordings")
            line.append(f"; {unread} not readable" if unread else "")
    return line.append("" if one.p_yes is None else f" (mean p(yes) {one.p_yes:.2f})")


def probe_table(one: OneQuestion) -> Table:
    table = Table("probe", "asked", "says", "consistent", box=None, padding=(0, 2, 0, 0))
    for p in one.probes:
        says = " · ".join(a.text + ("" if a.p_yes is None else f" ({a.p_yes:.2f})") for a in p.answers)
        off = p.expected is not None and p.reading is not None and p.reading is not p.expected
        wanted = "open" if p.expected is None else word(p.expected)
        table.add_row(TITLES[p.name], Text(p.about), Text(says), Text(wanted, style="bold red" if off else ""))
    return table
