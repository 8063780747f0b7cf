"""MMBench, its spatial leaf categories, with circular evaluation.

Format: TSV (index, image as base64 or as the index of the row that holds it, question, hint, A to E, answer, category;
others are ignored), or the hub's copy with the same columns. Rows index + k * 1,000,000 are the turns of question
index: its options rotated, the answer with them. Test splits have no answers.

Rule (arXiv 2307.06281; open-compass/MMBench, and VLMEvalKit's matching without a judge model): a question counts only
if every turn is right. An answer names the option whose letter is the only option letter among its words, or else (if
there are none or several) the only option whose text it contains. For anything else the benchmark's own server asks a
language model; here it is wrong. A question that lacks turns cannot be judged right: it is left out of `circular` and
counted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from vsre.benchmarks.benchmark import GENERATE, Benchmark, Replies, Right
from vsre.benchmarks.item import LETTERS, Item, lettered
from vsre.benchmarks.rows import Row, Unusable, option_index
from vsre.benchmarks.shares import Share, Shares, all_right, in_groups
from vsre.benchmarks.source import Source
from vsre.benchmarks.tables import dereferenced

SPATIAL = ("spatial_relationship", "object_localization")
PHYSICAL = ("physical_relation",)
TURN = 1_000_000
_OPTIONS = LETTERS[:5]
_COLUMNS = ("index", "question", "A", "B", "category", "image|image_path")
_OPTIONAL = ("hint", "C", "D", "E", "answer", "image_path")
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def rows(source: Source, categories: Sequence[str] = SPATIAL) -> Iterator[Row]:
    patterns = ("*.tsv", "*.parquet", "*/*.parquet")
    return dereferenced(source, patterns, _COLUMNS, _OPTIONAL, lambda row: _category(row) in categories)


def _category(row: Row) -> str:
    return row.text("category").casefold().replace(" ", "_")


def item(row: Row, source: Source) -> Item | None:
    try:
        index = int(row.need("index"))
    except ValueError as error:
        raise Unusable("the index is no number", row.text("index")[:40]) from error
    question = row.need("question")
    texts = [row.text(letter) for letter in _OPTIONS]
    options = tuple(texts[: next((i for i, text in enumerate(texts) if not text), len(texts))])
    if len(options) < 2 or any(texts[len(options) :]):
        raise Unusable("fewer than two options, or a gap between them", str(texts)[:80])
    answer = row.text("answer")
    value = row.values.get("image")
    picture = source.picture(row, value if value not in (None, "") else row.text("image_path"), folders=("images",))
    return Item(
        key=str(index),
        picture=picture,
        options=options,
        answer=option_index(answer, len(options)) if answer else None,
        prompt=lettered(question, options, hint=row.text("hint")),
        bare="\n".join(filter(None, (row.text("hint"), question))),
        group=str(index % TURN),
        category=_category(row),
        extra={"question": question},
    )


def read(text: str, item: Item) -> int | None:
    """Rule-based matching as in VLMEvalKit: the only letter, else the only text that the answer contains."""
    words = set(text.translate(_PUNCTUATION).split())
    letters = [index for index, name in enumerate(item.names) if name in words]
    if len(letters) == 1:
        return letters[0]
    if len(text) > 2 * sum(map(len, item.options)):
        return None
    said = text.lower()
    found = [index for index, option in enumerate(item.options) if option.lower() in said]
    return found[0] if len(found) == 1 else None


def aggregate(items: Sequence[Item], right: Right, shares: Shares) -> dict[str, Share]:
    groups = in_groups(items)

    def whole(complete: bool) -> Share:
        some = (g for g in groups if is_complete(g) is complete)
        return shares.mean((g[0], all_right([right.get(i.key) for i in g])) for g in some)

    return {
        "circular": whole(True),
        "vanilla": shares.mean((i, right.get(i.key)) for i in items if int(i.key) < TURN),
        "turns": shares.mean((i, right.get(i.key)) for i in items),
        "circular_incomplete": whole(False),
    }


def is_complete(group: Sequence[Item]) -> bool:
    """Whether a question has a turn for each of its options."""
    turns = {int(i.key) // TURN for i in group}
    return turns == set(range(max(len(i.options) for i in group)))


def gaps(items: Sequence[Item]) -> dict[str, int]:
    lacking = sum(not is_complete(group) for group in in_groups(items))
    return {"questions without all their turns, which are in circular_incomplete and not in circular": lacking}


def export(items: Sequence[Item], replies: Replies) -> dict[str, str]:
    """`predictions.tsv`: the columns that the benchmark's server expects."""
    answers = replies.get(GENERATE, {})
    out = io.StringIO()
    table = csv.writer(out, delimiter="\t", lineterminator="\n")
    table.writerow(["index", "question", *_OPTIONS[:4], "prediction", "category"])
    told = [i for i in items if i.key in answers and answers[i.key].text is not None]
    for i in told:
        options = (*i.options, "", "", "", "")[:4]
        table.writerow([i.key, i.extra["question"], *options, answers[i.key].text, i.category])
    return {"predictions.tsv": out.getvalue()} if told else {}


MMBENCH = Benchmark(
    name="mmbench",
    title="MMBench (spatial)",
    about="questions with options about places and relations, each asked with its options in every rotation",
    wants="mmbench_dev_en_*.tsv or another of its TSV files, Parquet files, or a hub id",
    source="open-compass/MMBench on GitHub links the files; hub: lmms-lab/MMBench",
    citation="arXiv 2307.06281",
    official=("rule",),
    rule="the only option letter among the words, else the only option text in the answer, else wrong; all turns right",
    rows=rows,
    item=item,
    read=read,
    aggregate=aggregate,
    gaps=gaps,
    export=export,
    hub_parts=(("en", "dev"),),
)

MMBENCH_PHYSICAL = replace(
    MMBENCH,
    name="mmbench-physical",
    title="MMBench (physical relation)",
    about="MMBench's leaf category physical_relation, which is partly about space, by the same rules",
    rows=partial(rows, categories=PHYSICAL),
)
