"""What a report says about how its figures were obtained: data, models, stages, versions, machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from vsre.model import VsreConfig, config_with, fusion_from, plan_checkpoints
from vsre.model.checkpoints import load_config
from vsre.recipes.data_options import DERIVED, DRAWN, SUBSET
from vsre.recipes.schema import Recipe
from vsre.recipes.start import encoder_specs


def source_rows(imported: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per split of the source."""
    return [
        {
            "data": split,
            "triplets": entry["triplets"],
            "images": entry["images"],
            "true": f"{entry['true'] / entry['triplets']:.1%}" if entry["triplets"] else "–",
            "with boxes": entry["both_boxes"],
            "set aside": sum(entry["set_aside"].values()),
            "removed by the protocol": sum(entry["removed"].values()),
        }
        for split, entry in imported["splits"].items()
    ]


def data_rows(summaries: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per question source."""
    return [
        {
            "data": name,
            "triplets": summary["rewrite"]["triplets"],
            "questions": summary["rewrite"]["questions"],
            "pack": summary["rewrite"]["pack"],
            "templates": len(summary["rewrite"]["templates"]),
            "seed": summary["rewrite"]["seed"],
            **_chosen(summary),
        }
        for name, summary in summaries.items()
    ]


def _chosen(summary: dict[str, Any]) -> dict[str, str]:
    """Say how triplets that are not simply the train split were chosen and added to; empty for those that are."""
    said = []
    if drawn := summary.get(DRAWN):
        removed = sum(drawn["removed"].values())
        said.append(f"{drawn['pictures']:,} scenes of its own" + (f", {removed:,} rows removed" if removed else ""))
    if subset := summary.get(SUBSET):
        relations = ", ".join(subset["without"])
        said.append(f"{subset['triplets']:,} of {subset['of']:,}" + (f", without {relations}" if relations else ""))
    if derived := summary.get(DERIVED):
        added = [f"{figures['rows']:,} {kind}" for kind, figures in derived["derived"].items()]
        said.append(f"and {', '.join(added)}; {derived['true']:.1%} true")
    return {"triplets are": "; ".join(said)} if said else {}


def model_rows(recipe: Recipe, out: Path) -> list[dict[str, Any]]:
    """Return what each model is made of, and how many visual tokens it uses per picture."""
    rows = []
    for model in recipe.models:
        row: dict[str, Any] = {
            "model": model.name,
            "start": model.start.checkpoint or model.start.model or model.start.llm or model.start.vlm,
        }
        config = load_config(model.start.checkpoint)[0] if model.start.checkpoint else None
        if isinstance(config, VsreConfig):
            if model.start.encoders:
                config = config_with(config, [choice.id for choice in model.start.encoders])
            row["encoders"] = ", ".join(
                f"{s.name} {s.grid}x{s.grid} -> {config.fused_by.tokens_of(s, config.specs)}" for s in config.specs
            )
            row["fusion"] = config.fused_by.kind
            row["visual tokens"] = config.image_tokens
        elif model.start.encoders:
            start = model.start
            plan = plan_checkpoints(str(start.llm), encoder_specs(start.encoders), fusion=fusion_from(start.fusion))
            row["encoders"] = ", ".join(f"{r.encoder} {r.grid} -> {r.tokens}" for r in plan.rows)
            row["fusion"] = plan.fusion
            row["visual tokens"] = plan.tokens
        row["about"] = model.note
        rows.append(row)
    return rows


def stage_rows(recipe: Recipe) -> list[dict[str, Any]]:
    rows = []
    for model in recipe.models:
        for stage, parsed in zip(model.stages, model.parsed_stages(), strict=True):
            rows.append(
                {
                    "model": model.name,
                    "stage": parsed.name,
                    "trains": ", ".join(parsed.train),
                    "data": ", ".join(stage["data"]),
                    "images a step": parsed.batch_images,
                    "questions an image": parsed.questions_per_image,
                    "steps": parsed.max_steps or f"{parsed.epochs:g} epochs",
                    "learning rate": f"{parsed.lr:g}",
                }
            )
    return rows


def hardware() -> dict[str, Any]:
    found: dict[str, Any] = {"processor cores": os.cpu_count(), "torch threads": torch.get_num_threads()}
    if hasattr(os, "sysconf"):
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name(0)
    return found
