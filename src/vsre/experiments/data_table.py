"""What the arms of an experiment were trained on: pictures, statements, the share of true ones, and questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vsre.experiments.files import Plan
from vsre.experiments.run import recipe_folders
from vsre.recipes.schema import DataSpec
from vsre.train.checkpoints import read_json
from vsre.triplets import parquet_files


def data_rows(plan: Plan, out: Path, seed: int) -> list[dict[str, Any]]:
    """Return one row per question source of one seed; a source that several variants share appears once. Sources whose
    files are gone are left out.

    {"data", "variants", "pictures", "statements", "true" (share, None for general questions), "questions"}
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (variant, at), (recipe, folder) in recipe_folders(plan, out).items():
        for name, spec in recipe.data.items() if at == seed else ():
            if (found := _counted(spec, folder, name)) is not None:
                row = rows.setdefault((name, *found.values()), {"data": name, "variants": [], **found})
                row["variants"].append(variant)
    return list(rows.values())


def _counted(spec: DataSpec, folder: Path, name: str) -> Mapping[str, Any] | None:
    own = folder / "data" / name
    at = own / "triplets" if spec.repaint or spec.general else spec.triplets_in(own, folder / "triplets" / "train")
    step = (own if spec.general else own / "questions") / "step.json"
    if not step.is_file() or not at.is_dir():
        return None
    table = pa.concat_tables([pq.read_table(file, columns=["image_id", "label"]) for file in parquet_files(at)])
    return {
        "pictures": len(pc.unique(table["image_id"])),
        "statements": len(table),
        "true": None if spec.general else pc.mean(table["label"]).as_py(),
        "questions": read_json(step)["summary"]["questions"],
    }
