"""SEED-Bench-2, its dimensions Instance Location (4) and Spatial Relation (6).

Format: `SEED-Bench_v2_level1_2_3.json` ({"questions": [...]}, with answer, choice_a to choice_d, data_id, question,
question_id, question_type_id) beside `cc3m-image/`, whose files are named by data_id, without a suffix; or the hub's
copy with the pictures in `image`. SEED-Bench 1's file has the same fields and numbers.

Rule (arXiv 2311.17092; AILab-CVC/SEED-Bench, SEED-Bench-2/eval.py and model/llava_v2_interface.py): the question alone,
without letters or options; for each choice the mean loss over its tokens and the end token; the smallest wins. For
generation, the options are in the prompt with letters, as in other tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from vsre.benchmarks.benchmark import LIKELIHOOD, Benchmark, Replies, Right
from vsre.benchmarks.item import LETTERS, Item, lettered
from vsre.benchmarks.rows import Row, Unusable, option_index
from vsre.benchmarks.shares import Share, Shares
from vsre.benchmarks.source import Source

DIMENSIONS = {"4": "Instance Location", "6": "Spatial Relation"}
_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
_FOLDERS = ("cc3m-image", "seed_bench_image", "SEED-Bench-2-image", "SEED-Bench-image")


def rows(source: Source) -> Iterator[Row]:
    patterns = ("SEED-Bench_v2*.json", "SEED-Bench*.json", "*.json", "*.parquet", "*/*.parquet")
    columns = ("question", "question_id", "question_type_id", "answer", *_CHOICES, "data_id|image")
    return source.rows(patterns, columns, ("image",))


def item(row: Row, source: Source) -> Item | None:
    category = DIMENSIONS.get(row.need("question_type_id"))
    if category is None:
        return None
    question, key = row.need("question"), row.need("question_id")
    options = tuple(text for name in _CHOICES if (text := row.text(name)))
    if len(options) != len(_CHOICES):
        raise Unusable("a choice is empty", f"{len(options)} of {len(_CHOICES)}")
    value = row.values.get("image")
    picture = source.picture(row, row.values.get("data_id") if value in (None, "", []) else value, folders=_FOLDERS)
    return Item(
        key=key,
        picture=picture,
        options=options,
        answer=option_index(row.need("answer"), len(options)),
        prompt=lettered(question, options),
        bare=question,
        group=key,
        category=category,
    )


def aggregate(items: Sequence[Item], right: Right, shares: Shares) -> dict[str, Share]:
    found = {"accuracy": shares.mean((i, right.get(i.key)) for i in items)}
    for name in dict.fromkeys(i.category for i in items):
        found[name] = shares.mean((i, right.get(i.key)) for i in items if i.category == name)
    return found


def export(items: Sequence[Item], replies: Replies) -> dict[str, str]:
    """`results.json`, one line per question, as the benchmark's eval.py writes it."""
    from vsre.benchmarks.scoring import choose

    lines = []
    for i in items:
        reply = replies.get(LIKELIHOOD, {}).get(i.key)
        usable, choice = choose("likelihood", SEED, i, reply) if reply is not None else (False, None)
        if usable and choice is not None:
            lines.append(json.dumps({"question_id": i.key, "prediction": LETTERS[choice]}) + "\n")
    return {"results.json": "".join(lines)} if lines else {}


SEED = Benchmark(
    name="seed-bench-2",
    title="SEED-Bench-2 (spatial)",
    about="questions with four choices about where things are and how they are placed relative to each other",
    wants="SEED-Bench_v2_level1_2_3.json with cc3m-image/ beside it, Parquet files, or a hub id",
    source="hub AILab-CVC/SEED-Bench-2 has the JSON and cc3m-image.zip; hub lmms-lab/SEED-Bench-2 has both in one",
    citation="arXiv 2311.17092",
    official=("likelihood",),
    rule="the choice with the smallest mean loss over its tokens and the end token",
    rows=rows,
    item=item,
    aggregate=aggregate,
    export=export,
)
