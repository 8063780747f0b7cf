"""Template packs: YAML files, shipped or your own, checked template by template.

A pack file:

    name: mine
    purpose: what these templates are for
    templates:
      - id: mine-yes-no
        text: "{question} Answer with yes or no."
        format: yes-no          # a name in formats.yaml
        style: short            # or full: the answer repeats the statement
        tags: [plain]           # optional

or, to combine packs, `include: [phase1, mine.yaml]` instead of (or before) `templates`.
The slots of a text are those of `asking.SLOTS`; {{ and }} are plain braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from vsre.errors import VsreError
from vsre.rewrite.asking import BOX_SLOTS, RELATION_SLOTS, SENTENCE_SLOTS, SLOTS, Template, TemplatePack
from vsre.rewrite.formats import FORMATS, AnswerFormat

_SHIPPED = Path(str(files("vsre.rewrite").joinpath("packs")))

# An id becomes part of a question's id and of column values in reports.
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: _Id
    text: Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True)]
    format: str
    style: Literal["short", "full"] = "short"
    tags: list[str] = Field(default_factory=list)


class _Pack(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Id
    purpose: str = ""
    include: list[str] = Field(default_factory=list)
    templates: list[Any] = Field(default_factory=list)


def shipped_packs() -> list[str]:
    """The names that `load_pack` accepts without a path."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def load_pack(name_or_path: str | Path) -> TemplatePack:
    """A shipped pack by name, or your own by path (anything that ends in .yaml or .yml).

    Raises VsreError naming the file and the line of everything wrong in it.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = _SHIPPED / f"{name_or_path}.yaml"
        if str(name_or_path) not in shipped_packs():
            raise VsreError(
                f"No template pack {str(name_or_path)!r}. Shipped: {', '.join(shipped_packs())}. "
                "For your own give the path of its .yaml file."
            )
        return _load_shipped(path)
    return _load(path.resolve(), ())


@lru_cache
def _load_shipped(path: Path) -> TemplatePack:
    return _load(path, ())


def _load(path: Path, parents: tuple[Path, ...]) -> TemplatePack:
    if path in parents:
        raise VsreError(f"{path}: this pack includes itself. Remove it from its own `include`.")
    content, lines = _read_yaml(path)
    try:
        pack = _Pack.model_validate(content)
    except ValidationError as error:
        raise VsreError(_report(path, [_first_problem(error, lines, ())])) from None
    templates: list[Template] = []
    problems: list[tuple[int, str]] = []
    seen: dict[str, str] = {}
    for index, name in enumerate(pack.include):
        included = path.parent / name if name.endswith((".yaml", ".yml")) else _SHIPPED / f"{name}.yaml"
        if not included.is_file():
            problems.append((lines["include", index], f"`include` names {name!r}, but there is no {included}"))
            continue
        for template in _load(included.resolve(), (*parents, path)).templates:
            if template.id in seen:
                problem = f"the id {template.id!r} of {name} is taken by {seen[template.id]}"
                problems.append((lines["include", index], problem))
            seen[template.id] = f"the included pack {template.pack}"
            templates.append(template)
    for index, content in enumerate(pack.templates):
        line = lines["templates", index]
        try:
            entry = _Entry.model_validate(content)
        except ValidationError as error:
            problems.append(_first_problem(error, lines, ("templates", index)))
            continue
        if entry.id in seen:
            problems.append((lines["templates", index, "id"], f"the id {entry.id!r} is taken by {seen[entry.id]}"))
        seen[entry.id] = f"line {line}"
        for key, problem in _problems(entry):
            problems.append((lines["templates", index, key], f"template {entry.id!r}: {problem}"))
        if entry.format in FORMATS:
            templates.append(_template(entry, pack.name))
    if problems:
        raise VsreError(_report(path, problems))
    if not templates:
        raise VsreError(f"{path}: no templates in this pack. List them under `templates:`.")
    return TemplatePack(pack.name, tuple(templates), pack.purpose)


def _template(entry: _Entry, pack: str) -> Template:
    needs_boxes = any("{" + slot + "}" in entry.text for slot in BOX_SLOTS)
    return Template(entry.id, entry.text, FORMATS[entry.format], entry.style, needs_boxes, pack, tuple(entry.tags))


def _problems(entry: _Entry) -> Iterator[tuple[str, str]]:
    """(the key it belongs to, what is wrong) for a template whose fields have the right types."""
    answer_format = FORMATS.get(entry.format)
    if answer_format is None:
        yield "format", f"unknown format {entry.format!r}; formats are {', '.join(FORMATS)}"
    try:
        parts = list(Formatter().parse(entry.text))
    except ValueError as error:
        yield "text", f"unbalanced brace ({error}); write {{{{ and }}}} for plain braces"
        return
    slots = {name for _, name, _, _ in parts if name is not None}
    for name, spec, conversion in ((p[1], p[2], p[3]) for p in parts if p[1] is not None):
        if name not in SLOTS or spec or conversion:
            shown = f"{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}"
            yield "text", f"unknown slot {{{shown}}}; slots are {', '.join(sorted(SLOTS))}"
    if not slots & RELATION_SLOTS:
        yield (
            "text",
            "it never says the relation; use {caption}, {statement}, {question}, {whether} or {relation}",
        )
    elif not slots & SENTENCE_SLOTS and not {"subject", "object"} <= slots:
        yield (
            "text",
            "{relation} alone does not say what it relates; add {subject} and {object}, or use {caption}",
        )
    if slots & BOX_SLOTS and not slots >= BOX_SLOTS:
        yield "text", "it gives one box; give both {subject_box} and {object_box}"
    if answer_format is not None and answer_format.lettered:
        yield from _option_problems(entry.text, answer_format)


def _option_problems(text: str, answer_format: AnswerFormat) -> Iterator[tuple[str, str]]:
    """A lettered answer means nothing unless the text says what each letter stands for."""
    yes_options = {*answer_format.yes_words, "{caption}", "{statement}"}
    no_options = {*answer_format.no_words, "{negated}"}
    for letter, options in ((answer_format.yes, yes_options), (answer_format.no, no_options)):
        said = "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))
        if not re.search(
            rf"(?<!\w){letter}\)?(?:[.:)=]| means| for| if)\s*[\"']?(?:{said})(?!\w)", text, re.IGNORECASE
        ):
            some = ", ".join(repr(f"{letter}. {option}") for option in sorted(options))
            yield (
                "text",
                f"format {answer_format.name} answers with {letter}, but the text has none of {some}",
            )


def _read_yaml(path: Path) -> tuple[Any, dict[tuple[str | int, ...], int]]:
    """The content of a YAML file, and the 1-based line of everything in it by key path."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VsreError(f"{path}: cannot read this template pack: {error}.") from None
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        lines: dict[tuple[str | int, ...], int] = {}
        if node is not None:
            _note_lines(node, (), lines, path)
        return (None if node is None else loader.construct_document(node)), _Lines(lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise VsreError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}.") from None
    finally:
        loader.dispose()


class _Lines(dict[tuple[str | int, ...], int]):
    """A key that is not in the file (a field left out) has its parent's line."""

    def __missing__(self, key: tuple[str | int, ...]) -> int:
        return self[key[:-1]] if key else 1


def _note_lines(
    node: yaml.Node, at: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int], path: Path
) -> None:
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _note_lines(child, (*at, index), lines, path)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            place = (*at, str(key.value))
            if place in lines:
                raise VsreError(f"{path}, line {key.start_mark.line + 1}: {key.value!r} is given twice. Keep one.")
            _note_lines(child, place, lines, path)
            lines[place] = key.start_mark.line + 1


def _first_problem(
    error: ValidationError, lines: dict[tuple[str | int, ...], int], at: tuple[str | int, ...]
) -> tuple[int, str]:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    return lines[(*at, *first["loc"])], f"{where}: {first['msg'].lower()}, got {first['input']!r:.60}"


def _report(path: Path, problems: list[tuple[int, str]]) -> str:
    said = "\n".join(f"  line {line}: {problem}" for line, problem in sorted(problems))
    return f"{path}: {len(problems)} problem{'s' * (len(problems) != 1)} in this template pack:\n{said}"
