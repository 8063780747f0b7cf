"""BLINK: its tasks Spatial_Relation and Relative_Depth.

Format (hub BLINK-Benchmark/BLINK): `TASK/val-*.parquet` (idx, question, sub_task, image_1 to image_4, choices, answer
"(A)", prompt). In the test split answers are "hidden": it is read only if it is named.

Rule (arXiv 2404.12390; zeyofu/BLINK_Benchmark, eval/test_benchmark.py): `prompt` is asked as is. An answer that is a
letter, bare or in brackets, counts; else the only "(X)" among its words, first in the last paragraph, then in the
whole. For anything else the benchmark asks a language model; here it is wrong. The score is the mean over tasks. The
answer is stripped first: chat servers and tokenizers often add a space or line break at either end, and " A", which the
benchmark's language model would read as A, is the same answer as "A".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from vsre.benchmarks.benchmark import GENERATE, Benchmark, Replies, Right
from vsre.benchmarks.item import Item
from vsre.benchmarks.rows import Row, Unusable, option_index
from vsre.benchmarks.shares import Share, Shares, average
from vsre.benchmarks.source import Source

TASKS = ("Spatial_Relation", "Relative_Depth")
_COLUMNS = ("idx", "question", "choices", "answer", "prompt", "image_1")
_OPTIONAL = ("sub_task", "image_2", "image_3", "image_4")


def rows(source: Source) -> Iterator[Row]:
    tasks = [f"{task}/{split}*.parquet" for split in ("val", "") for task in TASKS]
    if source.hub is None and source.path.is_dir() and any((source.path / task).is_dir() for task in TASKS):
        for task in TASKS:
            if (source.path / task).is_dir():
                yield from source.rows([p for p in tasks if p.startswith(task)], _COLUMNS, _OPTIONAL)
    else:
        yield from source.rows(("val*.parquet", "*.parquet"), _COLUMNS, _OPTIONAL)


def item(row: Row, source: Source) -> Item | None:
    key = row.need("idx")
    said = f"{row.text('sub_task')} {key} {Path(row.file).parent.name}"
    task = next((task for task in TASKS if task in said.replace(" ", "_")), None)
    if task is None:
        return None
    if more := [name for name in ("image_2", "image_3", "image_4") if row.values.get(name)]:
        raise Unusable("not one picture", f"{', '.join(more)} too")
    options, answer = row.list_of_text("choices"), row.need("answer")
    return Item(
        key=key,
        picture=source.picture(row, row.values.get("image_1")),
        options=options,
        answer=None if answer == "hidden" else option_index(answer, len(options)),
        prompt=row.need("prompt"),
        bare=row.need("question"),
        group=key,
        category=task,
    )


def read(text: str, item: Item) -> int | None:
    """The repository's extraction from the stripped answer (the module says why), up to where it asks another model."""
    text = text.strip()
    if text in item.names:
        return item.names.index(text)
    bracketed = [f"({name})" for name in item.names]
    if text in bracketed:
        return bracketed.index(text)
    for part in (text.split("\n\n")[-1], text):
        words = set(part.split())
        found = [index for index, name in enumerate(bracketed) if name in words]
        if len(found) == 1:
            return found[0]
    return None


def aggregate(items: Sequence[Item], right: Right, shares: Shares) -> dict[str, Share]:
    tasks = {task: shares.mean((i, right.get(i.key)) for i in items if i.category == task) for task in TASKS}
    asked = [share for share in tasks.values() if share]
    return ({"mean_over_tasks": average(asked)} if asked else {}) | tasks


def export(items: Sequence[Item], replies: Replies) -> dict[str, str]:
    """`predictions.json` as the repository's evaluate.py reads it; an answer that its rule cannot read is (Z)."""
    told = {}
    for i in items:
        reply = replies.get(GENERATE, {}).get(i.key)
        if reply is not None and reply.text is not None:
            choice = read(reply.text, i)
            told[i.key] = "(Z)" if choice is None else f"({i.names[choice]})"
    return {"predictions.json": json.dumps(told, indent=1) + "\n"} if told else {}


BLINK = Benchmark(
    name="blink",
    title="BLINK (spatial)",
    about="yes/no questions about relations, and which of two marked points is closer to the camera",
    wants="the folder with Spatial_Relation/ and Relative_Depth/, their val-*.parquet, or a hub id",
    source="hub BLINK-Benchmark/BLINK",
    citation="arXiv 2404.12390",
    official=("rule",),
    rule="a letter alone, else the one (X) among the words of the last paragraph, or of the whole answer",
    rows=rows,
    item=item,
    read=read,
    aggregate=aggregate,
    export=export,
    hub_parts=tuple((task, "val") for task in TASKS),
)
