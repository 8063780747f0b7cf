"""`lmms_eval --model vsre`: any model that our engine runs, answering lmms-eval's requests from one prefix per picture.

    lmms-eval eval --model vsre --model_args pretrained=zoo:vsre --tasks ...

Greedy only, one picture per question. What cannot be answered is logged with its reason and answered with
`scoring.FAILED`, in which no task finds an answer; for likelihoods there is no such mark (see `likelihoods`), so more
than a few failures end the run.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult  # type: ignore[import-not-found]
from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
from loguru import logger  # type: ignore[import-not-found]
from PIL import Image
from tqdm import tqdm  # type: ignore[import-untyped]

from vsre.diagnose import Decoding, Engine, Prompt, Reply, TransformersEngine
from vsre.errors import VsreError
from vsre.lmms.likelihoods import Failures, losses
from vsre.lmms.scoring import FAILED

PLACEHOLDER = "<image>"
"""Tasks may write it where the picture belongs; the model's own chat template puts it there."""


@dataclass(frozen=True)
class Limits(Decoding):
    """Maximum tokens per answer, as each task sets them: here a prompt's style is that number's name."""

    tokens: dict[str, int] = field(default_factory=dict)

    def limit(self, style: str) -> int:
        return self.tokens[style] if style in self.tokens else super().limit(style)

    def style(self, tokens: int) -> str:
        """The style of prompts whose answers have at most this many tokens."""
        name = f"up to {tokens} tokens"
        self.tokens[name] = tokens
        return name


class Vsre(lmms):
    """Any model of `TransformersEngine`: a folder, a hub id or zoo:NAME.

    `batch_images` pictures are read together and `batch_prompts` questions answered together; lmms-eval's own
    `--batch_size` sets the latter if it is above its default, 1. `way` is "auto" or "plain". Raises VsreError for a
    model that cannot be loaded and for unknown arguments.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "zoo:vsre",
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | str = 1,
        batch_images: int | str = 8,
        batch_prompts: int | str | None = None,
        way: str = "auto",
        max_batch_size: int | str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        self._image_ids: dict[tuple[str, str], list[Any] | None] = {}
        self._unranked = Failures()
        if unknown:
            raise VsreError(
                f"--model vsre does not know {', '.join(map(repr, sorted(unknown)))}. It takes pretrained, device, "
                "dtype, batch_images, batch_prompts and way."
            )
        if way not in ("auto", "plain"):
            raise VsreError(f"way={way} is neither auto nor plain.")
        accelerator = Accelerator()
        if accelerator.num_processes > 1:
            self.accelerator = accelerator
            self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
            device = str(accelerator.device)
        asked = _number("batch_size", batch_size) if batch_size != "auto" else 1
        self.limits = Limits()
        self.engine: Engine = TransformersEngine(
            str(pretrained),
            device=device,
            dtype=str(dtype),
            batch_images=_number("batch_images", batch_images),
            batch_prompts=_number("batch_prompts", batch_prompts) if batch_prompts else asked if asked > 1 else 64,
            decoding=self.limits,
            way="plain" if way == "plain" else "auto",
        )

    @property
    def device(self) -> Any:
        """The device on which lmms-eval gathers figures of several processes."""
        return getattr(self.engine, "device", "cpu")

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The greedy answers, cut at the task's `until`, in the order of the requests.

        Raises VsreError if a task asks for sampling or beams, and if not one request could be answered.
        """
        asked = []
        for request in requests:
            context, wanted, *place = request.args
            style = self.limits.style(_greedy(wanted, request.task_name))
            asked.append(self._asked(Prompt(_text(context), style=style), *place))
        answers = []
        for request, reply in zip(requests, self._answer(asked), strict=True):
            answer = FAILED if reply.error else _cut(reply.text or "", request.args[1].get("until"))
            self.cache_hook.add_partial("generate_until", request.args[:2], answer)
            answers.append(answer)
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """For each request (loss, whether a greedy answer begins with the continuation).

        The loss is the mean of -log P over the continuation's tokens and the end token, which lmms-eval's multiple
        choice minimises: its other models give losses here as well. Raises VsreError as above, and if more than
        `likelihoods.MOST_FAILED` of a task's questions failed; up to that, failed ones have infinite losses.
        """
        asked: dict[Any, _Asked] = {}
        places: list[tuple[Any, int]] = []  # for each request the question it belongs to, and which option it is
        for request in requests:
            if len(request.args) < 6:
                raise VsreError(
                    f"{request.task_name}: likelihoods without a picture (mutual information) are not supported."
                )
            context, continuation, *place = request.args
            option = continuation(self._doc(*place[1:])) if callable(continuation) else continuation
            question = (context, *place[1:])
            known = asked.get(question)
            options = (*(known.prompt.options if known else ()), str(option).strip())
            prompt = Prompt(_text(context), options, self.limits.style(_OPTION_TOKENS), end=True)
            asked[question] = self._asked(prompt, *place)
            places.append((question, len(options) - 1))
        replies = dict(zip(asked, self._answer(list(asked.values())), strict=True))
        found = {question: losses(reply, len(asked[question].prompt.options)) for question, reply in replies.items()}
        for question, reply in replies.items():
            _, _, task, _ = question
            self._unranked.add(task, reply, found[question])
        self._unranked.check()
        told = []
        for question, which in places:
            reply, option = replies[question], asked[question].prompt.options[which]
            said = (reply.text or "").strip()
            greedy = said.startswith(option) and not said[len(option) : len(option) + 1].isalnum()
            ranked = found[question]
            loss = float("inf") if ranked is None else ranked[which]
            # lmms-eval 0.7.3 turns everything but this class's content into text before a task sees it.
            told.append(GenerationResult(text=(loss, greedy)))
        return told

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise VsreError("--model vsre answers one question at a time: tasks of several rounds are not supported.")

    def clean(self) -> None:
        """Log how the questions were answered, and free the model's memory; lmms-eval calls it at the end."""
        notes = self.engine.notes()
        logger.info(f"vsre: answered by {notes.get('way')} ({notes.get('why')})")
        for line in self._unranked.told():
            logger.warning(f"vsre: {line}")
        del self.engine
        super().clean()

    def _doc(self, doc_id: int, task: str, split: str) -> Any:
        return self.task_dict[task][split][doc_id]

    def _asked(self, prompt: Prompt, doc_to_visual: Callable[[Any], Any] | None, *place: Any) -> _Asked:
        """`place` is the question's number, task and split."""

        def picture() -> bytes:
            shown = doc_to_visual(self._doc(*place)) if doc_to_visual else []
            if not shown or len(shown) != 1 or not isinstance(shown[0], Image.Image):
                found = ", ".join(type(visual).__name__ for visual in shown or ()) or "none"
                raise VsreError(f"one picture a question can be shown, and this one comes with {found}")
            return encoded(shown[0])

        doc_id, task, split = place
        if (task, split) not in self._image_ids:
            docs = self.task_dict[task][split]
            known = "image_id" in getattr(docs, "column_names", ())
            self._image_ids[task, split] = list(docs["image_id"]) if known else None
        ids = self._image_ids[task, split]
        return _Asked(prompt, picture, place if ids is None else ids[doc_id])

    def _answer(self, asked: Sequence[_Asked]) -> list[Reply]:
        replies: list[Reply] = [Reply(error="not asked")] * len(asked)
        with tqdm(total=len(asked), disable=self.rank != 0, desc="Model Responding") as bar:
            for batch in self._batches(asked, replies):
                answered = self.engine.answer([(data, [asked[i].prompt for i in rows]) for data, rows in batch])
                for (_, rows), found in zip(batch, answered, strict=True):
                    for i, reply in zip(rows, found, strict=True):
                        replies[i] = reply
                bar.update(sum(len(rows) for _, rows in batch))
        failed = Counter(reply.error for reply in replies if reply.error)
        for reason, n in failed.most_common(5):
            logger.error(f"vsre: {n} of {len(asked)} requests could not be answered: {reason}")
        if asked and failed.total() == len(asked):
            raise VsreError(f"Not one of {len(asked)} requests could be answered: {failed.most_common(1)[0][0]}")
        return replies

    def _batches(self, asked: Sequence[_Asked], replies: list[Reply]) -> Iterator[list[tuple[bytes, list[int]]]]:
        """Requests about at most `batch_images` pictures; those about one picture are together if they are near.

        If tasks name their pictures by an `image_id`, requests about one picture are near whatever their task. This
        only orders requests: whether pictures are the same is decided by content. A request without a usable picture
        gets its reply here.
        """
        ranks: dict[Hashable, int] = {}
        order = sorted(range(len(asked)), key=lambda i: ranks.setdefault(asked[i].near, len(ranks)))
        waiting: dict[bytes, tuple[bytes, list[int]]] = {}
        most = self.engine.batch_images * _PROMPTS_A_PICTURE
        for i in order:
            try:
                data = asked[i].picture()
            except Exception as error:  # the task's own code: whatever it raises must cost this question only
                replies[i] = Reply(error=f"{type(error).__name__}: {error}"[:300])
                continue
            content = blake2b(data, digest_size=16).digest()
            full = len(waiting) == self.engine.batch_images and content not in waiting
            if full or sum(len(rows) for _, rows in waiting.values()) >= most:
                yield list(waiting.values())
                waiting = {}
            waiting.setdefault(content, (data, []))[1].append(i)
        if waiting:
            yield list(waiting.values())


@dataclass(frozen=True)
class _Asked:
    """A prompt, a function that gets its picture when its turn comes, and a value shared by requests about it."""

    prompt: Prompt
    picture: Callable[[], bytes]
    near: Hashable


_OPTION_TOKENS = 16
"""How far a greedy answer is followed to see whether it begins with an option."""

_PROMPTS_A_PICTURE = 512
"""Maximum in a batch, on average: one picture with a million questions must not wait for the last of them."""


def encoded(image: Image.Image) -> bytes:
    """A picture encoded losslessly, in the fastest way there is. Pixels as they are, without EXIF."""
    file = io.BytesIO()
    if image.mode == "RGB":
        image.save(file, "PPM")
    else:
        plain = image.copy()
        plain.info.pop("exif", None)
        if plain.mode not in ("1", "L", "LA", "P", "RGBA", "I", "I;16"):
            plain = plain.convert("RGB")
        plain.save(file, "TIFF" if plain.mode == "I" else "PNG")
    return file.getvalue()


def _text(context: str) -> str:
    return context.replace(PLACEHOLDER, "").strip() if PLACEHOLDER in context else context


def _greedy(wanted: dict[str, Any], task: str) -> int:
    """The most tokens that a task's generation settings allow; raises VsreError for those that are not greedy."""
    if wanted.get("do_sample") or float(wanted.get("temperature") or 0) > 0 or int(wanted.get("num_beams") or 1) > 1:
        raise VsreError(
            f"{task} asks for sampling or beams, and vsre answers greedily. "
            "Run it with --gen_kwargs do_sample=False,temperature=0,num_beams=1."
        )
    return int(wanted.get("max_new_tokens") or 1024)


def _cut(text: str, until: str | Iterable[str] | None) -> str:
    for end in [until] if isinstance(until, str) else until or ():
        text = text.split(end, 1)[0] if end else text
    return text


def _number(name: str, value: int | str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise VsreError(f"{name}={value} is not a whole number of 1 or more.")
    return number
