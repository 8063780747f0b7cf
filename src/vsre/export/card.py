"""The model card: what a model is made of, what it was trained on, what was measured, and what is not known."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

import vsre
from vsre.export.origins import UNKNOWN, is_hub_id
from vsre.export.results import HEADLINES, Measured, by_test, eval_results
from vsre.export.training import DataFacts, StageFacts
from vsre.lmms.card import plain
from vsre.model.checkpoints import ZOO_PREFIX
from vsre.report.compare import blind_floor
from vsre.report.inputs import Run
from vsre.report.reliance import reliance_line
from vsre.report.results import markdown_table


@dataclass(frozen=True)
class CardFacts:
    """All that a card is written from. `visual_tokens` is None if the model does not state them; `made` is what a
    shipped model's own card says about how it was made."""

    name: str
    own_code: bool
    parts: list[dict[str, str]]
    parameters: int
    dtype: str
    visual_tokens: int | None
    stages: list[StageFacts]
    data: list[DataFacts]
    results: list[Measured]
    licence: str | None
    made: dict[str, Any] = field(default_factory=dict)


def write_card(folder: Path, facts: CardFacts) -> Path:
    """Write FOLDER/README.md: front matter for the hub, with a model index, and the card."""
    path = folder / "README.md"
    path.write_text(f"---\n{_front_matter(facts)}\n---\n\n{_text(facts)}", "utf-8")
    return path


def _front_matter(facts: CardFacts) -> str:
    from huggingface_hub import ModelCardData

    measured = eval_results(facts.results)
    bases = [row["checkpoint"] for row in facts.parts if is_hub_id(row["checkpoint"])]
    data = ModelCardData(
        license=facts.licence,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        language=["en"],
        tags=["vsre", "spatial-reasoning", *(["custom_code"] if facts.own_code else [])],
        base_model=list(dict.fromkeys(bases)) or None,
        model_name=facts.name if measured else None,
        eval_results=measured or None,
    )
    head = "" if facts.licence else "# license: yours to set, by the licences of the parts and the data (below)\n"
    return head + data.to_yaml()


def _text(facts: CardFacts) -> str:
    # Markdown, not HTML: the hub's own renderer sanitises what it shows, and `cell` keeps text from data plain.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True, trim_blocks=True
    )
    environment.filters["cell"] = plain
    template = environment.from_string(files("vsre.export").joinpath("card.md.j2").read_text("utf-8"))
    return template.render(
        facts=facts,
        data=list(dict.fromkeys(facts.data)),
        tables=[_table(group) for group in by_test(facts.results)],
        limits=limitations(facts),
        unknown=[row["part"] for row in facts.parts if row["licence"] == UNKNOWN],
        versions={"vsre": vsre.__version__, "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers")},
    )


def _table(group: list[Measured]) -> dict[str, Any]:
    """One test: what it was, its table, and what the answers depend on."""
    first, runs = group[0], [_named(result) for result in group]
    lines = [(run.name, line) for run in runs if (line := reliance_line(run))]
    return {
        "data": first.data,
        "protocol": first.protocol,
        "triplets": first.run.metrics.get("n_triplets"),
        "images": first.run.metrics.get("n_images"),
        "table": markdown_table(runs),
        "looks": lines,
        "versions": first.run.info.get("versions", {}),
    }


def _named(result: Measured) -> Run:
    """The run under a name that cannot contain mark-up; the table itself escapes only what would break it."""
    plain_name = "".join(c if c.isalnum() or c in " .,:/+-" else f"&#{ord(c)};" for c in result.run.name[:100])
    name = f"**this model** ({plain_name})" if result.same_weights else f"{plain_name} (other weights)"
    return replace(result.run, spec=result.run.spec.model_copy(update={"name": name}))


def limitations(facts: CardFacts) -> list[str]:
    """Sentences on where the model cannot be trusted, from the figures and the parts; plain text."""
    own = [result for result in facts.results if result.same_weights]
    said = []
    if not own:
        said.append(
            "Nothing was measured on these weights: whatever else is said here, how well they answer is not known."
        )
    for result in own:
        _, floor = blind_floor(result.run)
        where = f"on {result.data}, protocol {result.protocol}"
        below = [t for key, t in HEADLINES.items() if result.above_floor(key, floor.value) is False]
        if below:
            said.append(f"{' and '.join(below)} ({where}): not above what guessing without the picture reaches.")
        bias = result.run.estimate("bias").value
        if bias is not None and bias > LEANING:
            said.append(
                f"It leans to one answer ({where}): accuracies on true and on false are {100 * bias:.0f} points apart."
            )
        if result.protocol == "paper":
            said.append(f"The protocol paper trains on test rows ({where}): the figures say little about new pictures.")
        if floor.value is None:
            said.append(f"No blind floor was measured ({where}): part of the accuracy may need no picture.")
    if any(row["checkpoint"].startswith(ZOO_PREFIX) for row in facts.parts):
        said.append("Parts are vsre's tiny models, which know drawn scenes and nothing else: not for photographs.")
    said.append("Tested, if at all, with English questions about one picture and how two things in it relate.")
    said.append("Accuracy depends on the wording: compare models under the same wordings only.")
    return said


LEANING = 0.2
"""The mean gap between the accuracies on true and on false statements above which a card warns of it."""
