"""MME, its position category: two questions per picture, one whose answer is yes and one no.

Format: the release's folder `position/` with a .txt beside each picture (QUESTION, tab, Yes or No; other categories
keep them in `images/` and `questions_answers_YN/`), a TSV (index, image as base64 or as the index of the row that
holds it, image_path, question, answer, category), or the hub's copy (question_id, image, question, answer, category).

Rule (arXiv 2306.13394; `calculation.py` of the release's eval_tool): an answer that in lower case is yes or no counts
as that; else "yes", then "no", within its first four characters; else it is wrong. acc is the share of right answers,
acc+ that of pictures with both right, the score 100 acc + 100 acc+, out of 200. Pairs are consecutive rows of one
picture. First the answer is stripped and its line breaks become spaces, as the result file's format requires.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from vsre.benchmarks.benchmark import GENERATE, Benchmark, Replies, Right
from vsre.benchmarks.item import Item
from vsre.benchmarks.rows import Row, Unusable
from vsre.benchmarks.shares import Share, Shares, all_right, in_groups
from vsre.benchmarks.source import Source
from vsre.benchmarks.tables import dereferenced

CATEGORY = "position"
YES_NO = ("yes", "no")
_COLUMNS = ("question", "answer", "image|image_path")
_OPTIONAL = ("question_id", "index", "category", "image_path")
_PICTURES = (".jpg", ".jpeg", ".png", ".JPG", ".PNG")


def rows(source: Source) -> Iterator[Row]:
    folder = None if source.hub or source.path.is_file() else _folder(source.path)
    if folder is not None:
        return _text_files(folder, source)
    return dereferenced(source, ("MME*.tsv", "*.tsv", "*.parquet", "*/*.parquet"), _COLUMNS, _OPTIONAL, _is_position)


def _is_position(row: Row) -> bool:
    """Whether a row is of this category; a file without categories holds only this one."""
    return row.text("category").casefold() in ("", CATEGORY)


def item(row: Row, source: Source) -> Item | None:
    if not _is_position(row):
        return None
    question, said = row.need("question"), row.need("answer").casefold().rstrip(".")
    if said not in YES_NO:
        raise Unusable("the answer is neither yes nor no", said[:40])
    value = row.values.get("image")
    path = row.text("image_path")
    picture = source.picture(row, value if value not in (None, "") else path, folders=(CATEGORY, "images"))
    shown = row.text("question_id") or path
    name = PurePosixPath(shown).name if shown else row.text("index") or picture.name
    return Item(
        key=row.text("index") or f"{name}/{question}",
        picture=picture,
        options=("Yes", "No"),
        answer=YES_NO.index(said),
        prompt=question,
        bare=question,
        group=row.text("question_id") or picture.id,
        category=CATEGORY,
        labels=YES_NO,
        extra={"image": name, "question": question},
    )


def read(text: str, item: Item) -> int | None:
    """The release's own rule; None for its "other"."""
    said = one_line(text).casefold()
    if said in YES_NO:
        return YES_NO.index(said)
    return next((i for i, word in enumerate(YES_NO) if word in said[:4]), None)


def aggregate(items: Sequence[Item], right: Right, shares: Shares) -> dict[str, Share]:
    acc = shares.mean((i, right.get(i.key)) for i in items)
    plus = shares.mean((pair[0], all_right([right.get(i.key) for i in pair])) for pair in _pairs(items))
    found = {"acc": acc, "acc_plus": plus}
    return found | ({"score": acc.plus(plus).times(100)} if acc and plus else {})


def gaps(items: Sequence[Item]) -> dict[str, int]:
    odd = sum(len(group) % 2 for group in in_groups(items))
    return {"pictures with an odd number of questions, which count in acc but not in acc+": odd}


def export(items: Sequence[Item], replies: Replies) -> dict[str, str]:
    """`position.txt` as the release's eval_tool reads it: picture, question, truth, answer, tab-separated."""
    answers = replies.get(GENERATE, {})
    lines = []
    for i in items:
        reply = answers.get(i.key)
        if reply is not None and reply.text is not None and i.answer is not None:
            cells = (i.extra["image"], i.extra["question"], i.options[i.answer], reply.text)
            lines.append("\t".join(one_line(cell) for cell in cells) + "\n")
    return {f"{CATEGORY}.txt": "".join(lines)} if lines else {}


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _pairs(items: Sequence[Item]) -> Iterator[tuple[Item, Item]]:
    for group in in_groups(items):
        if len(group) % 2 == 0:
            yield from zip(group[::2], group[1::2], strict=True)


def _folder(path: Path) -> Path | None:
    """The release's folder of the category, None if this is something else."""
    for place in (path, path / CATEGORY, *sorted(path.glob(f"*/{CATEGORY}")), *sorted(path.glob(f"*/*/{CATEGORY}"))):
        if place.is_dir() and (any(place.glob("*.txt")) or (place / "questions_answers_YN").is_dir()):
            return place
    return None


def _text_files(folder: Path, source: Source) -> Iterator[Row]:
    questions = folder / "questions_answers_YN"
    questions, images = (questions, folder / "images") if questions.is_dir() else (folder, folder)
    for file in sorted(questions.glob("*.txt")):
        picture = next((images / (file.stem + s) for s in _PICTURES if (images / (file.stem + s)).is_file()), None)
        for number, line in enumerate(file.read_text("utf-8-sig", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            question, tab, answer = line.rpartition("\t")
            if not tab:
                source.aside.add(file, number, "no tab between question and answer", line[:60])
            elif picture is None:
                source.aside.add(file, number, "no such picture file", f"{images / file.stem} with {_PICTURES}")
            else:
                key = f"{picture.name}:{number}"
                values = {"image": picture, "question_id": picture.name, "index": key, "question": question}
                yield Row(str(file), number, values | {"answer": answer})


MME = Benchmark(
    name="mme",
    title="MME (position)",
    about="60 yes/no questions on 30 pictures about where things are",
    wants="the release's folder (or its position/), a TSV, Parquet files, or a hub id",
    source="MME's release (BradyFU/Awesome-Multimodal-Large-Language-Models says how to get it), or hub lmms-lab/MME",
    citation="arXiv 2306.13394",
    official=("rule",),
    rule="exactly yes or no in lower case, else yes, then no, within the first 4 characters, else wrong",
    rows=rows,
    item=item,
    read=read,
    aggregate=aggregate,
    points=("score",),
    gaps=gaps,
    export=export,
)
