"""What the tiny models read before any spatial tuning: captions, general questions, and plain English.

No question here has an answer that depends on how two things lie in a picture: the models learn, as LLaVA does, to name
things, to count, to say where a thing is. They do read the wordings of the spatial templates, as text: facts are stated
in words and a template asks about them, sometimes beside a picture that has nothing to do with them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from vsre.relations.grammar import caption, negated
from vsre.relations.ontology import RELATIONS
from vsre.rewrite import Template, ask, load_pack
from vsre.sources.coco import SUPERCATEGORY
from vsre.triplets import Box, Triplet


@dataclass(frozen=True)
class Fact:
    """One object of a picture: its class and visible box (fractions), nearest first in a list of facts."""

    name: str
    box: Box

    @property
    def x(self) -> float:
        return (self.box[0] + self.box[2]) / 2

    @property
    def y(self) -> float:
        return (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Exchange:
    """A question about a picture and its answer; `kind` groups them for measuring."""

    kind: str
    prompt: str
    answer: str


def article(name: str) -> str:
    if name in {"skis", "scissors"}:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def listing(names: Sequence[str]) -> str:
    """ "a cat", "a cat and a dog", "a cat, a dog and a car"."""
    parts = [article(n) for n in names]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


COLUMNS, ROWS = ("left", "middle", "right"), ("top", "center", "bottom")


def place(fact: Fact) -> str:
    """The ninth of the picture that holds the object's centre, in words: "top left"."""
    return f"{ROWS[min(2, int(3 * fact.y))]} {COLUMNS[min(2, int(3 * fact.x))]}"


def scene_caption(facts: Sequence[Fact], rng: random.Random) -> str:
    """One caption such as a photo might have: what is there, and sometimes where."""
    order = list(facts)
    rng.shuffle(order)
    names = [f.name for f in order]
    form = rng.randrange(5)
    if form == 0:
        return f"A photo of {listing(names)}."
    if form == 1:
        return f"There is {listing(names)} in this picture."
    if form == 2:
        left_to_right = [f.name for f in sorted(facts, key=lambda f: f.x)]
        return f"From left to right we see {listing(left_to_right)}."
    if form == 3:
        top_down = [f.name for f in sorted(facts, key=lambda f: f.y)]
        return f"From top to bottom we see {listing(top_down)}."
    return "A scene with " + ", ".join(f"{article(f.name)} at the {place(f)}" for f in order) + "."


YES_NO_ENDINGS: tuple[tuple[str, str, str], ...] = (
    ("", "Yes", "No"),
    (" Answer with yes or no.", "Yes", "No"),
    (" Say yes or no.", "Yes", "No"),
    (" A. yes B. no", "A", "B"),
    (" A. no B. yes", "B", "A"),
)
STATEMENT_ENDINGS: tuple[tuple[str, str, str], ...] = (
    (" Right or not? Reply true or false.", "True", "False"),
    (" True or false?", "True", "False"),
    (" Reply true or not.", "True", "Not"),
    (" Yes or no?", "Yes", "No"),
)


def presence(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    """Is there a cat? Half the time there is none."""
    present = rng.random() < 0.5
    there = {f.name for f in facts}
    name = rng.choice(sorted(there)) if present else rng.choice([c for c in classes if c not in there])
    if rng.random() < 0.6:
        text = rng.choice([f"Is there {article(name)}?", f"Do you see {article(name)} in the picture?"])
        ending, yes, no = rng.choice(YES_NO_ENDINGS)
    else:
        text = rng.choice([f"There is {article(name)}.", f"The picture shows {article(name)}."])
        ending, yes, no = rng.choice(STATEMENT_ENDINGS)
    return Exchange("presence", text + ending, yes if present else no)


def either(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    """Is it a cat or a dog? Only one of them is there."""
    there = {f.name for f in facts}
    right, wrong = rng.choice(sorted(there)), rng.choice([c for c in classes if c not in there])
    pair = [right, wrong]
    rng.shuffle(pair)
    return Exchange("either", f"Do you see {article(pair[0])} or {article(pair[1])}?", right)


NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")


def count(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    return Exchange("count", "How many things are in the picture?", NUMBERS[len(facts)])


def where(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    """Where is the cat? Its ninth of the picture, or its box as LLaVA's region questions have it."""
    fact = rng.choice(list(facts))
    if rng.random() < 0.7:
        return Exchange("where", f"Where do you see the {fact.name}?", place(fact))
    box = ", ".join(f"{v:.1f}" for v in fact.box)
    return Exchange("box", f"Give the box of the {fact.name}.", f"[{box}]")


def what_at(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    """What is at the top left? Asked only if exactly one object has that place."""
    alone = [f for f in facts if sum(place(g) == place(f) for g in facts) == 1]
    if not alone:
        return where(facts, classes, rng)
    fact = rng.choice(alone)
    return Exchange("what_at", f"What can be found at the {place(fact)}?", fact.name)


def describe(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    prompt = rng.choice(["Describe the picture.", "What do you see?", "Write a caption."])
    return Exchange("describe", prompt, scene_caption(facts, rng))


def places(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    """Every object with its place, nearest first: the densest lesson in what is where."""
    return Exchange("places", "List the things and their places.", "; ".join(f"{f.name}: {place(f)}" for f in facts))


def third(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    """In which third of the picture is the cat? One of the two words of `where`."""
    fact = rng.choice(list(facts))
    row, column = place(fact).split()
    if rng.random() < 0.5:
        return Exchange("third", f"Is the {fact.name} in the left, middle or right third?", column)
    return Exchange("third", f"Is the {fact.name} in the top, center or bottom third?", row)


@cache
def read_templates() -> tuple[Template, ...]:
    """The templates whose English the language model reads; never the held-out pack."""
    return tuple(t for name in ("pool", "stage1", "test-s") for t in load_pack(name).templates)


def reading(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    """A fact in words, and a template that asks about it: beside a picture, but not about the picture."""
    return Exchange("reading", *reading_exchange(read_templates(), classes, rng))


TOLD = {
    **dict.fromkeys(("left of", "at the left side of"), ("column", -1)),
    **dict.fromkeys(("right of", "at the right side of"), ("column", 1)),
    **dict.fromkeys(("above", "over"), ("row", -1)),
    **dict.fromkeys(("below", "under", "beneath"), ("row", 1)),
    **dict.fromkeys(("near", "close to", "next to"), ("distance", -1)),
    **dict.fromkeys(("far from", "far away from"), ("distance", 1)),
}
"""How a relation follows from places in words: which part of the place decides it, and in which direction."""


def told(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    """Places in words, and a template that asks how two things lie: what a language model knows without a picture.

    The places are made up, whatever the picture beside them shows; the answer is in the text alone.
    """
    while True:
        names = rng.sample(list(classes), rng.randint(2, 4))
        placed = {n: (rng.randrange(3), rng.randrange(3)) for n in names}
        subject, thing = names[:2]
        relation, (part, direction) = rng.choice(list(TOLD.items()))
        (r0, c0), (r1, c1) = placed[subject], placed[thing]
        apart = {"column": c0 - c1, "row": r0 - r1, "distance": max(abs(r0 - r1), abs(c0 - c1)) * 2 - 3}[part]
        if apart:
            break
    rng.shuffle(names)
    text = "; ".join(f"{n}: {ROWS[placed[n][0]]} {COLUMNS[placed[n][1]]}" for n in names)
    question = ask(rng.choice(read_templates()), _triplet(subject, relation, thing, apart * direction > 0))
    return Exchange("told", f"{text}\n{question.prompt}", question.answer)


def knowledge(facts: Sequence[Fact], classes: Sequence[str], rng: random.Random) -> Exchange:
    return Exchange("knowledge", *knowledge_exchange(SUPERCATEGORY, rng))


MAKERS = {
    "presence": presence, "either": either, "count": count, "where": where, "what_at": what_at, "describe": describe,
    "places": places, "third": third, "reading": reading, "told": told, "knowledge": knowledge,
}  # fmt: skip
GENERAL = {"presence": 4, "either": 2, "count": 1, "where": 3, "what_at": 2, "describe": 1, "places": 2}
"""How often each kind of question is asked, relative to the others."""


def general_questions(
    facts: Sequence[Fact],
    classes: Sequence[str],
    rng: random.Random,
    n: int,
    mix: Mapping[str, float] = GENERAL,
) -> list[Exchange]:
    """`n` general exchanges about one picture, no prompt twice; `mix`: names of MAKERS with their weights."""
    makers, weights = [MAKERS[kind] for kind in mix], list(mix.values())
    found: dict[str, Exchange] = {}
    for _ in range(4 * n):
        exchange = rng.choices(makers, weights)[0](facts, classes, rng)
        found.setdefault(exchange.prompt, exchange)
        if len(found) == n:
            break
    return list(found.values())


def _triplet(subject: str, relation: str, obj: str, label: bool) -> Triplet:
    return Triplet("text", "", subject, relation, obj, caption(subject, relation, obj), label, "train", "text",
                   subject_box=(0.0, 0.0, 0.5, 0.5), object_box=(0.5, 0.5, 1.0, 1.0))  # fmt: skip


def reading_exchange(templates: Sequence[Template], classes: Sequence[str], rng: random.Random) -> tuple[str, str]:
    """Reading comprehension without a picture: a fact in words, then a template asks about it.

    The statement asked about is the fact itself, its inverse (true) or its antonym (false), or the fact is negated: the
    language model learns what the templates' English means, not what any picture shows.
    """
    subject, obj, other = rng.sample(list(classes), 3)
    relation = rng.choice(list(RELATIONS.values()))
    facts = [caption(subject, relation.name, obj)]
    asked, label = (subject, relation.name, obj), True
    form = rng.random()
    if form < 0.4:
        facts, label = [negated(subject, relation.name, obj)], False
    elif form < 0.55 and relation.inverse and relation.inverse_soundness in {"strict", "frame", "symmetric"}:
        asked = (obj, relation.inverse, subject)
    elif form < 0.7 and relation.antonym:
        asked, label = (subject, relation.antonym, obj), False
    if rng.random() < 0.3:
        facts.insert(rng.randrange(2), caption(other, rng.choice(list(RELATIONS)), rng.choice([subject, obj])))
    question = ask(rng.choice(list(templates)), _triplet(*asked, label))
    return " ".join(facts) + "\n" + question.prompt, question.answer


WORD_PAIRS = (
    ("yes", "no"), ("true", "false"), ("true", "not"), ("correct", "incorrect"), ("agree", "disagree"),
    ("accurate", "inaccurate"), ("valid", "invalid"), ("positive", "negative"), ("holds", "fails"), ("1", "0"),
)  # fmt: skip


def knowledge_exchange(kinds: dict[str, str], rng: random.Random) -> tuple[str, str]:
    """Is a cat an animal? Plain knowledge in many answer words, so that answer words mean something."""
    name = rng.choice(sorted(kinds))
    truth = rng.random() < 0.5
    kind = kinds[name] if truth else rng.choice(sorted(set(kinds.values()) - {kinds[name]}))
    yes, no = rng.choice(WORD_PAIRS)
    first, second = rng.sample([yes, no], 2)
    text = rng.choice(["{a} is {b}. Choose {x} or {y}.", "Take {x} or {y}: {a} is {b}.", "{x} or {y}? {a}: {b}."])
    prompt = text.format(a=article(name).capitalize(), b=article(kind), x=first, y=second)
    return prompt, (yes if truth else no).capitalize()


def corpus(
    templates: Sequence[Template], kinds: dict[str, str], seed: int, start: int = 0
) -> Iterator[tuple[str, str]]:
    """An endless stream of (prompt, answer) pairs without pictures; pair i depends on (seed, i) only."""
    classes = sorted(kinds)
    i = start
    while True:
        rng = random.Random(f"{seed}/{i}")
        form = rng.random()
        if form < 0.6:
            yield reading_exchange(templates, classes, rng)
        elif form < 0.75:
            yield knowledge_exchange(kinds, rng)
        else:
            names = rng.sample(classes, rng.randint(2, 5))
            facts = [Fact(n, _random_box(rng)) for n in names]
            exchange = rng.choice(general_questions(facts, classes, rng, 4))
            told = "; ".join(f"{f.name}: {place(f)}" for f in facts)
            yield f"{told}\n{exchange.prompt}", exchange.answer
        i += 1


def _random_box(rng: random.Random) -> Box:
    w, h = rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.4)
    x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
    return (x, y, x + w, y + h)
