"""CV-Bench: its tasks Relation (2D), Depth and Distance (3D). Count, which is not about space, is left out.

Format (hub nyu-visionx/CV-Bench): `test_2d.parquet` and `test_3d.parquet` (idx, type, task, image, question, choices,
answer "(A)", prompt, source), or `test_2d.jsonl` and `test_3d.jsonl` with `filename` under `img/`.

Rule (arXiv 2406.16860; the data set's card, and cambrian-mllm/cambrian, eval/eval/coco and omni): `prompt` is asked as
is, with a request for the letter; the first character after the last "answer is" and then after the last "answer:",
without brackets, is the answer. So "The answer is: B" leaves ": b", which is wrong: a fault of the rule, kept here. 2D
accuracy is the mean of those on ADE20K and COCO, 3D that on Omni3D, the combined score their mean: here over the
spatial tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vsre.benchmarks.benchmark import Benchmark, Right
from vsre.benchmarks.item import DIRECTLY, Item
from vsre.benchmarks.rows import Row, option_index
from vsre.benchmarks.shares import Share, Shares, average
from vsre.benchmarks.source import Source

TASKS = {"relation": "Relation", "depth": "Depth", "distance": "Distance"}
_2D = ("ADE20K", "COCO")
_3D = ("Omni3D",)
_LEADS = ("answer is", "answer is:", "answer:")
"""Cut off one after another, in Cambrian's order: the second is never found after the first."""


def rows(source: Source) -> Iterator[Row]:
    columns = ("idx", "type", "task", "question", "choices", "answer", "prompt", "source", "image|filename")
    return source.rows(("test*.parquet", "*.parquet", "*/*.parquet", "test*.jsonl", "*.jsonl"), columns, ("filename",))


def item(row: Row, source: Source) -> Item | None:
    task = TASKS.get(row.need("task").casefold())
    if task is None:
        return None
    options = row.list_of_text("choices")
    value = row.values.get("image")
    key = f"{row.need('type')}/{row.need('idx')}"
    return Item(
        key=key,
        picture=source.picture(row, value if value not in (None, "") else row.text("filename"), folders=("img",)),
        options=options,
        answer=option_index(row.need("answer"), len(options)),
        prompt=f"{row.need('prompt')}\n{DIRECTLY}",
        bare=row.need("question"),
        group=key,
        category=task,
        extra={"source": row.need("source")},
    )


def read(text: str, item: Item) -> int | None:
    """Cambrian's extraction of a letter."""
    said = text.lower().strip()
    for lead in _LEADS:
        said = said.split(lead)[-1]
    said = said.strip().rstrip(".").lstrip("(").rstrip(")")
    names = [name.lower() for name in item.names]
    return names.index(said[0]) if said and said[0] in names else None


def aggregate(items: Sequence[Item], right: Right, shares: Shares) -> dict[str, Share]:
    def share(sources: Sequence[str]) -> list[Share]:
        parts = [shares.mean((i, right.get(i.key)) for i in items if i.extra["source"] == name) for name in sources]
        return [part for part in parts if part]

    found = {}
    two, three = share(_2D), share(_3D)
    if two:
        found["2D"] = average(two)
    if three:
        found["3D"] = average(three)
    if two and three:
        found = {"combined": average([found["2D"], found["3D"]]), **found}
    return found | {"accuracy": shares.mean((i, right.get(i.key)) for i in items)}


def gaps(items: Sequence[Item]) -> dict[str, int]:
    known = {*_2D, *_3D}
    return {
        "questions from another source than ADE20K, COCO and Omni3D, which are in accuracy only": sum(
            i.extra["source"] not in known for i in items
        )
    }


CV_BENCH = Benchmark(
    name="cv-bench",
    title="CV-Bench (spatial)",
    about="relation in the plane, depth order and relative distance, on ADE20K, COCO and Omni3D pictures",
    wants="the folder with test_2d.parquet and test_3d.parquet (or the .jsonl files and img/), or a hub id",
    source="hub nyu-visionx/CV-Bench",
    citation="arXiv 2406.16860",
    official=("rule",),
    rule="the first character after the last 'answer is' and then the last 'answer:', without brackets",
    rows=rows,
    item=item,
    read=read,
    aggregate=aggregate,
    gaps=gaps,
    hub_parts=(("2D", "test"), ("3D", "test")),
)
