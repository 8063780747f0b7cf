"""The data set card: front matter that the hub and `datasets` read, and what a user must know about the figures."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml

TITLES = {
    "test_s": "Test-S: one fixed wording",
    "test_g": "Test-G: the pool's wordings",
    "unseen": "wordings that share no two words in a row with any training pack",
}


def write_card(folder: Path, summary: dict[str, Any], features: Any) -> Path:
    """Write FOLDER/README.md for a test set; `summary` is the content of testset.json, `features` its columns."""
    # Markdown, not HTML: the hub's own renderer sanitises what it shows, and `cell` keeps text from data plain.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters["cell"] = plain
    template = environment.from_string(files("vsre.lmms").joinpath("card.md.j2").read_text("utf-8"))
    text = template.render(**summary, titles=TITLES, left_out=_left_out(summary))
    path = folder / "README.md"
    path.write_text(f"---\n{_front_matter(summary, features)}---\n\n{text}", "utf-8")
    return path


def _front_matter(summary: dict[str, Any], features: Any) -> str:
    from datasets.info import DatasetInfo, DatasetInfosDict
    from huggingface_hub import DatasetCardData

    names = list(summary["configs"])
    questions = sum(config["questions"] for config in summary["configs"].values())
    card = DatasetCardData()
    DatasetInfosDict({name: DatasetInfo(features=features) for name in names}).to_dataset_card_data(card)
    configs = [
        {"config_name": name, "data_files": [{"split": "test", "path": f"{name}/test-*.parquet"}]} for name in names
    ]
    configs[0]["default"] = True
    content = {
        "pretty_name": "VSR expanded test sets",
        "language": ["en"],
        "task_categories": ["visual-question-answering"],
        "tags": ["spatial-reasoning", "prompt-sensitivity", "vsre"],
        "size_categories": [_size(questions)],
        "configs": configs,
        **card.to_dict(),
    }
    head = ""
    if summary["licence"]:
        content = {"license": summary["licence"], **content}
    else:
        head = "# license: yours to set, by where captions and pictures come from (Sources and licence, below)\n"
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _size(n: int) -> str:
    """The hub's name for a number of rows."""
    names = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
    return next((name for most, name in names.items() if n < most), "n>10M")


def _left_out(summary: dict[str, Any]) -> list[str]:
    told = [f"{n:,} statements ({reason})" for reason, n in summary["set_aside"].items()]
    skipped = summary["skipped"]
    if skipped["duplicate_rows"]:
        told.append(f"{skipped['duplicate_rows']:,} repeated rows")
    if skipped["no_boxes"]:
        told.append(f"{skipped['no_boxes']:,} questions that would state boxes which are unknown")
    return told


def plain(text: str) -> str:
    """Text from data made safe for Markdown, including tables: one line, no mark-up."""
    return "".join(f"\\{c}" if c in r"\`*_[]<>|#" else c for c in " ".join(str(text).split()))
