"""The report: one self-contained HTML file that loads nothing."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import vsre
from vsre.diagnose.metrics import HEADLINES
from vsre.errors import VsreError
from vsre.files import write_aside
from vsre.report import charts, compare, gallery, reliance, results
from vsre.report.also import also_rows
from vsre.report.inputs import (
    Estimate,
    ReportMeta,
    ReportRun,
    Run,
    before_and_after,
    columns_of,
    open_run,
    read_loss,
)
from vsre.report.svg import Scale
from vsre.report.text import clean, duration, value_text

SMALL_N = 20
"""A group with fewer statements than this is drawn grey."""

_HERE = Path(__file__).parent


def write_report(out_html: Path | str, runs: Sequence[ReportRun], meta: ReportMeta) -> Path:
    """Write the report of some runs, in the order given, to one self-contained HTML file; return its path.

    The first run (of role "base") and the last (of role "expert") are contrasted. Figures that a run lacks
    show as a dash with the reason. Raises VsreError if there is no run, or if a run folder has no readable
    metrics.json.
    """
    loaded = [open_run(run) for run in runs]
    if not loaded:
        raise VsreError("A report needs at least one run folder of `vsre diagnose`.")
    page = environment().get_template("page.html.j2").render(_context(loaded, meta))
    out = Path(out_html)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_aside(out, page.encode("utf-8", "replace"))  # an open browser tab never loads half a page
    return out


def style_sheet() -> str:
    return (_HERE / "templates" / "style.css").read_text(encoding="utf-8")


def environment() -> jinja2.Environment:
    """Return the environment of this package's templates, which escapes and cleans everything shown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # everything shown passes through here, so no text is missed
        finalize=lambda v: clean(v) if isinstance(v, str) and not isinstance(v, Markup) else v,
    )
    environment.filters.update(value=value_text, duration=duration, percent=charts.percent)
    environment.globals.update(columns_of=columns_of)
    return environment


def _context(runs: list[Run], meta: ReportMeta) -> dict[str, Any]:
    before, after = before_and_after(runs)
    contrasted = [before] if before is after else [before, after]
    groups, template = gallery.gallery(before, after, meta.seed)
    wordings = gallery.wordings(before, after, meta.seed)
    gallery.add_pictures([*(c for g in groups for c in g.cards), *wordings], meta.triplets)
    protocols = list(dict.fromkeys(p for p in (meta.protocol, *(r.metrics.get("protocol") for r in runs)) if p))
    return {
        "css": Markup(style_sheet()),
        "meta": meta,
        "checks": _as_rows(meta.checks),
        "protocol": ", ".join(map(str, protocols)) or "not stated",
        "leaky": "paper" in protocols,
        "other_tests": [r.name for r in runs if not compare.same_test(runs[0], r)],
        "found": Markup(compare.finding(before, after, _strong)),
        "steps": compare.steps(runs),
        "columns": [(c, results.shared_n(c, runs)) for c in results.columns(runs)],
        "rows": results.rows(runs),
        "more": results.more(runs),
        "runs": runs,
        "before": before,
        "after": after,
        "test_s": after.section("test_s").get("template"),
        "strips": strips(runs),
        "packs": _packs(contrasted),
        "between": [(r, _by_pack(r)) for r in runs if r is not before and r is not after],
        "all_templates": _template_table(runs),
        "categories": _groups("meta_category", contrasted),
        "relations": _groups("relation", contrasted),
        "groups": groups,
        "gallery_template": template,
        "wordings": wordings,
        "losses": _losses(runs),
        "small_n": SMALL_N,
        "looks": [(run.name, text) for run in runs if (text := reliance.reliance_line(run))],
        "reliance": reliance.reliance_rows(runs),
        "likelihood": reliance.likelihood_rows(runs),
        "also": also_rows(runs),
        "warnings": [(run.name, text) for run in runs for text in run.metrics.get("warnings") or []],
        "seeds": {"gallery": meta.seed, **meta.seeds},
        "versions": {"vsre": vsre.__version__, "python": platform.python_version(), **meta.versions},
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    }


def _as_rows(mapping: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a dictionary as a table: one row per key; groups of figures become columns."""
    return [
        {
            "check": name,
            **(value if isinstance(value, dict) and "value" not in value else {"accuracy": value}),
        }
        for name, value in mapping.items()
    ]


def _strong(name: str) -> str:
    return Markup("<strong>{}</strong>").format(clean(name))


def strips(runs: list[Run]) -> dict[str, Any]:
    """Return the chart of the first screen: every model's accuracy under every wording of the pool."""
    pool = HEADLINES["test_g"]
    dots: dict[int, list[tuple[str, float]]] = {}
    for i, run in enumerate(runs):
        scores = [
            (str(t.get("template")), Estimate.of(t.get("acc_t")).value)
            for t in run.templates()
            if t.get("pack") == pool
        ]
        dots[i] = [(name, value) for name, value in scores if value is not None]
    floors = [compare.blind_floor(run)[1].value for run in runs]
    pinned = [run.estimate("test_s", "acc_t") for run in runs]
    means = [run.estimate("test_g", "acc_t") for run in runs]
    values = [v for group in dots.values() for _, v in group]
    edges = [e for m in means for e in (m.low, m.high)]
    scale = Scale.around([0.5, *values, *(v for v in [*floors, *(p.value for p in pinned), *edges] if v is not None)])
    rows = [
        {
            "run": run,
            "svg": charts.strip(run.name, dots[i], means[i], pinned[i], floors[i], scale),
            "mean": means[i].value,
            "low": min((v for _, v in dots[i]), default=None),
            "high": max((v for _, v in dots[i]), default=None),
        }
        for i, run in enumerate(runs)
    ]
    return {
        "rows": rows,
        "axis": charts.x_axis(scale),
        "count": max(map(len, dots.values()), default=0),
        "floor": next((f for f in reversed(floors) if f is not None), None),
    }


def _by_pack(run: Run) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(str(t.get("pack")) for t in run.templates()))
    charted = []
    for name in names:
        templates = [t for t in run.templates() if str(t.get("pack")) == name]
        about = f"{run.name}, {name}"
        charted.append(
            {
                "name": name,
                "count": len(templates),
                "accuracy": charts.template_chart(about, templates),
                "yes_no": charts.yes_no_chart(about, templates),
            }
        )
    return charted


def _packs(runs: list[Run]) -> list[dict[str, Any]]:
    """Return each pack's charts, runs side by side; a pack of one template has no curve and is left out."""
    charted = [{p["name"]: p for p in _by_pack(run)} for run in runs]
    counts = {name: max(p["count"] for side in charted if (p := side.get(name))) for side in charted for name in side}
    return [
        {
            "name": name,
            "count": count,
            "sides": [(r, c.get(name)) for r, c in zip(runs, charted, strict=True)],
        }
        for name, count in counts.items()
        if count > 1
    ]


def _template_table(runs: list[Run]) -> list[dict[str, Any]]:
    """Return one row per template with five figures per run, in the order of `runs`."""
    names = ("answered", "acc_t", "acc_a", "yes_acc", "no_acc")
    found = [{(str(t.get("pack")), str(t.get("template"))): t for t in run.templates()} for run in runs]
    places = dict.fromkeys(at for templates in found for at in templates)
    rows = []
    for at in places:
        figures = [Estimate.of(templates.get(at, {}).get(name)) for templates in found for name in names]
        shown = [results.COLUMNS[0].number(e.value) for e in figures]
        rows.append({"pack": at[0], "template": at[1], "figures": shown})
    return rows


def _groups(column: str, runs: list[Run]) -> dict[str, Any]:
    """Return accuracy over all wordings by "relation" or "meta_category", most statements first."""
    sides = [(run.name, cls, run.section(f"by_{column}")) for cls, run in zip("ab"[-len(runs) :], runs, strict=True)]
    statements = runs[-1].statements(column)
    figures = {
        name: [(who, cls, Estimate.of((found.get(name) or {}).get("acc_t"))) for who, cls, found in sides]
        for name in dict.fromkeys(name for _, _, found in sides for name in found)
    }
    edges = [v for row in figures.values() for _, _, e in row for v in (e.low, e.high, e.value) if v is not None]
    scale = Scale.around([0.5, *edges])
    rows = []
    for name, row in figures.items():
        told = [(who, charts.percent(e.value), results.COLUMNS[0].interval(e)) for who, _, e in row]
        svg = charts.dot_rows(name, row, scale)
        rows.append({"name": name, "n": statements.get(name, 0), "svg": svg, "figures": told})
    return {"rows": sorted(rows, key=lambda r: (-r["n"], r["name"])), "axis": charts.x_axis(scale)}


def _losses(runs: list[Run]) -> list[dict[str, Any]]:
    found = []
    for run in runs:
        for path in run.spec.logs:
            points = read_loss(path)
            about = f"{run.name}: {path.parent.name}"
            svg = charts.loss_chart(about, points) if len(points) > 1 else None
            found.append({"name": run.name, "stage": path.parent.name, "svg": svg, "steps": len(points)})
    return found
