"""The samples of a run: one row per question, in Parquet files that are complete from the moment they appear."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vsre.diagnose.prompts import Prompt
from vsre.diagnose.replies import Reply
from vsre.errors import VsreError, first_line
from vsre.relations.grammar import caption, negated
from vsre.relations.ontology import relation as find_relation
from vsre.rewrite import Question, Template
from vsre.rewrite.reading import read_answer
from vsre.triplets import Triplet

YES, NO, UNANSWERED, ERROR = "yes", "no", "unanswered", "error"

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("pack", pa.string()),
        ("template", pa.string()),
        ("key", pa.string()),
        ("image_id", pa.string()),
        ("subject", pa.string()),
        ("relation", pa.string()),
        ("meta_category", pa.string()),
        ("object", pa.string()),
        ("caption", pa.string()),
        ("truth", pa.bool_()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("reading", pa.string()),
        ("correct", pa.bool_()),
        ("p_yes", pa.float64()),
        ("logp_yes", pa.float64()),
        ("logp_no", pa.float64()),
        ("tokens_yes", pa.int32()),
        ("tokens_no", pa.int32()),
        ("error", pa.string()),
        ("cut", pa.bool_()),
    ]
)
"""`answer` is the model's raw text, `reading` what it means (yes, no, unanswered, error). `correct` is null on errors:
they are neither right nor wrong. `cut`: the answer ended at the token limit; null if unknown."""

ADDED = ("cut",)
"""Columns that earlier versions did not write: null in their files."""


IDENTITY = ("key", "pack", "template")
"""The columns that identify a question within its run."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the run with the triplet and the template it comes from.

    `denied`: the prompt gives the negated statement, so a yes means that the statement does not hold. `unknown`: the
    truth is unknown (probes may ask what logic leaves open), so the answer is neither right nor wrong.
    """

    triplet: Triplet
    template: Template
    question: Question
    denied: bool = False
    unknown: bool = False

    @property
    def id(self) -> tuple[str, ...]:
        """Its values of IDENTITY."""
        return self.question.key, self.question.pack, self.question.template

    def prompt(self) -> Prompt:
        """The question as an engine takes it, with the likelihood of the format's yes and no."""
        return Prompt(self.question.prompt, self.template.format.options, self.template.style)

    def sample(self, model: str, reply: Reply) -> dict[str, Any]:
        """The row for the reply."""
        return to_sample(model, self, reply)


def to_sample(model: str, asked: Asked, reply: Reply) -> dict[str, Any]:
    """One row of SCHEMA."""
    question, triplet = asked.question, asked.triplet
    if reply.error is None:
        said = (triplet.subject, triplet.relation, triplet.object)
        statement, denial = caption(*said), negated(*said)
        if asked.denied:
            statement, denial = denial, statement
        value = read_answer(reply.text or "", asked.template.format, statement=statement, negated=denial).value
        reading = UNANSWERED if value is None else YES if value else NO
    else:
        value, reading = None, ERROR
    return {
        "model": model,
        "pack": question.pack,
        "template": question.template,
        "key": question.key,
        "image_id": question.image_id,
        "subject": triplet.subject,
        "relation": triplet.relation,
        "meta_category": meta_category(triplet.relation),
        "object": triplet.object,
        "caption": triplet.caption,
        "truth": None if asked.unknown else question.truth,
        "prompt": question.prompt,
        "answer": storable(reply.text),
        "reading": reading,
        "correct": None if reading == ERROR or asked.unknown else value is question.truth,
        "p_yes": reply.p_yes,
        "logp_yes": reply.logp_yes,
        "logp_no": reply.logp_no,
        "tokens_yes": reply.scores[0].tokens if reply.scores else None,
        "tokens_no": reply.scores[1].tokens if reply.scores else None,
        "error": storable(reply.error),
        "cut": reply.cut,
    }


def storable(text: str | None) -> str | None:
    """Text in which lone surrogates, which a server's JSON may hold but no file can, are question marks."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


@cache
def meta_category(relation: str) -> str:
    """The ontology's category of a relation; "other" for a relation that VSR does not have."""
    try:
        return find_relation(relation).meta_category
    except VsreError:
        return "other"


def write_part(folder: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema = SCHEMA) -> Path:
    """Write rows as the next part-NNNNN.parquet; the file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    # Numbered after the last one, not by count: if a part was deleted, a later one must not be overwritten.
    numbers = [int(found[1]) for file in sample_files(folder) if (found := _NUMBER.fullmatch(file.name))]
    path = folder / f"part-{max(numbers, default=-1) + 1:05d}.parquet"
    _write(path, pa.Table.from_pylist(list(rows), schema=schema))
    return path


def sample_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def drop_errors(folder: Path, about_to: Callable[[], None] = lambda: None) -> int:
    """Remove the rows with an error from a folder's parts, so that their questions are open again; returns how many.

    Each part is replaced whole, so that no reader ever finds a question twice and a kill loses only errors; `about_to`
    is called before the first is changed.
    """
    dropped = 0
    for file in sample_files(folder):
        errors = pc.is_valid(_read(file, ["error"])["error"])
        if not (n := pc.sum(errors).as_py()):
            continue
        if not dropped:
            about_to()
        kept = _read(file).filter(pc.invert(errors))
        if len(kept):
            _write(file, kept)
        else:
            file.unlink()
        dropped += n
    return dropped


def read_samples(folder: Path, columns: Sequence[str] | None = None, schema: pa.Schema = SCHEMA) -> pa.Table:
    """All samples in the order they were asked; an empty table if there are none yet."""
    wanted = list(columns or schema.names)
    added = [name for name in ADDED if name in wanted]
    tables = []
    for file in sample_files(folder):
        table = _read(file, columns)
        for name in added:
            if name not in table.column_names:
                table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
        if lost := [name for name in wanted if name not in table.column_names]:
            raise VsreError(f"{file}: the columns {', '.join(lost)} are missing, so it is not a file of this version.")
        tables.append(table.select(wanted))
    return pa.concat_tables(tables) if tables else schema.empty_table().select(wanted)


_NUMBER = re.compile(r"part-(\d+)\.parquet")


def _write(path: Path, table: pa.Table) -> None:
    draft = path.with_suffix(".tmp")
    pq.write_table(table, draft, compression="zstd")
    draft.replace(path)


def _read(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        with pq.ParquetFile(file) as part:
            return part.read([name for name in columns if name in part.schema_arrow.names] if columns else None)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # an error of the disk, not of Parquet
            raise VsreError(f"{file}: cannot be read ({first_line(error)}).") from error
        raise VsreError(
            f"{file}: damaged, perhaps by a full disk or an incomplete copy ({first_line(error)}). Delete this file: "
            "the same command then asks its questions again."
        ) from error
