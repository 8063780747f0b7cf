"""EmbSpatial-Bench: six relations as a robot sees them, in rooms of Matterport3D, AI2-THOR and ScanNet.

Format (mengfeidu/EmbSpatial-Bench): `embspatial_bench.json`, a list with question_id, question, relation, image
(base64 JPEG), answer_options, answer (the index of the right option, from 0), data_source; or a hub copy with the same
fields.

Rule (arXiv 2406.05756; the repository's README): accuracy, by two methods, generation and likelihood. Neither the
prompt, nor how generated text is read, nor a length normalisation is published: here generation asks with letters and
is read by our reader, likelihood is that of the whole option after the question, and length-normalised ones are given
alongside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vsre.benchmarks.benchmark import Benchmark, Right
from vsre.benchmarks.item import Item, lettered
from vsre.benchmarks.rows import Row, Unusable, option_index
from vsre.benchmarks.shares import Share, Shares
from vsre.benchmarks.source import Source

RELATIONS = ("close", "far", "above", "under", "left", "right")
_COLUMNS = ("question_id", "question", "relation", "answer_options", "answer", "image")


def rows(source: Source) -> Iterator[Row]:
    patterns = ("embspatial_bench.json", "*bench*.json", "*.json", "*.parquet", "*/*.parquet")
    return source.rows(patterns, _COLUMNS, ("data_source",))


def item(row: Row, source: Source) -> Item | None:
    relation = row.need("relation").casefold()
    if relation not in RELATIONS:
        raise Unusable("not one of the six relations", relation[:40])
    key = row.need("question_id")
    question = row.need("question").strip("'\"")  # some questions begin with a stray quotation mark
    options, answer = row.list_of_text("answer_options"), row.need("answer")
    index = int(answer) if answer.isdigit() else option_index(answer, len(options))
    if index >= len(options):
        raise Unusable("the answer names no option", f"{answer} of {len(options)} options")
    return Item(
        key=key,
        picture=source.picture(row, row.values["image"]),
        options=options,
        answer=index,
        prompt=lettered(question, options),
        bare=question,
        group=key,
        category=relation,
        extra={"source": row.text("data_source")},
    )


def kind(item: Item) -> str:
    """The category for close and far, which questions name; which of the other four holds is the answer."""
    return item.category if item.category in ("close", "far") else "arrangement"


def aggregate(items: Sequence[Item], right: Right, shares: Shares) -> dict[str, Share]:
    return {"accuracy": shares.mean((i, right.get(i.key)) for i in items)}


EMBSPATIAL = Benchmark(
    name="embspatial",
    title="EmbSpatial-Bench",
    about="which thing is close, far, left, right, above or under, from where the camera stands",
    wants="embspatial_bench.json, Parquet files with its fields, or a hub id",
    source="hub Phineas476/EmbSpatial-Bench has the JSON; hub FlagEval/EmbSpatial-Bench can be loaded by its id",
    citation="arXiv 2406.05756",
    official=("reading", "likelihood_sum"),
    rule="accuracy by generation and by likelihood; how is not published",
    rows=rows,
    item=item,
    aggregate=aggregate,
    kind=kind,
)
