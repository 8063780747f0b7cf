"""Many questions about one image in one sequence: its prefix once, then branches that do not see each other.

    prefix (image, words all questions begin with) | question 1, answer 1 | question 2, answer 2 | ...

A branch attends to the prefix and to itself, and its positions continue where the prefix ends, so it computes
what it would alone: loss and gradients equal those of one sequence per question, at the price of one image
instead of many. `attention` has the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vsre.errors import VsreError
from vsre.train.examples import Example

IGNORE = -100


def shared_prefix(examples: Sequence[Example]) -> int:
    """How many leading tokens (the image counting as one) all examples share and can have as their prefix.

    At least one token that is not learnt stays in every branch: the token before the answer predicts the
    answer, and a shared token can predict one thing only.
    """
    length = min(e.first for e in examples) - 1
    head = examples[0].ids
    for example in examples[1:]:
        n = min(length, len(head), len(example.ids))
        unequal = np.flatnonzero(head[:n] != example.ids[:n])
        length = int(unequal[0]) if len(unequal) else n
    return length


class Packer:
    """Turns examples of one image into one sequence, and sequences into a batch."""

    def __init__(self, *, image_token_id: int, visual_tokens: int, pad_id: int) -> None:
        self.image_token_id, self.visual_tokens, self.pad_id = image_token_id, visual_tokens, pad_id

    def sequence(self, examples: Sequence[Example], cut: int | None = None) -> dict[str, np.ndarray]:
        """One image's examples as arrays of length L: ids, labels, positions, branch (0: prefix, 1 .. K).

        `cut` is how many leading tokens go into the prefix, at most `shared_prefix(examples)`, which is the default.
        """
        cut = shared_prefix(examples) if cut is None else cut
        head = examples[0].ids
        at = int(np.flatnonzero(head == self.image_token_id)[0])
        if cut <= at and len(examples) > 1:
            raise VsreError(
                "this chat template puts words of the question before the image, so its questions cannot "
                "share the image. Set questions_per_image: 1 for every stage."
            )
        cut = max(cut, at + 1)
        picture = np.full(self.visual_tokens, self.image_token_id, dtype=np.int32)
        prefix = np.concatenate([head[:at], picture, head[at + 1 : cut]])
        tails = [e.ids[cut:] for e in examples]
        sizes = [len(t) for t in tails]
        ids = np.concatenate([prefix, *tails])
        labels = np.full(len(ids), IGNORE, dtype=np.int64)
        start = len(prefix)
        for example, size in zip(examples, sizes, strict=True):
            learnt = slice(start + example.first - cut, start + example.end - cut)
            labels[learnt] = ids[learnt]
            start += size
        positions = np.concatenate([np.arange(len(prefix)), *(np.arange(n) + len(prefix) for n in sizes)])
        branch = np.repeat(np.arange(len(sizes) + 1), [len(prefix), *sizes])
        return {"ids": ids, "labels": labels, "positions": positions, "branch": branch}

    def batch(self, packs: Sequence[Sequence[Example]]) -> dict[str, Any]:
        """input_ids, labels (B, L) int64, padded on the right; `tokens`: how many are not padding.

        With several questions in a sequence also position_ids and `branch` (B, L) int64: 0 in the prefix, 1 .. K in
        the branches, -1 for padding; BranchAttention makes masks from it. All prefixes of a batch have the same length,
        so that attention can do without a mask: what a pack shares beyond it goes into its branches. With one question
        in each sequence no mask is needed, because no token sees what is on its right.
        """
        cut = min(map(shared_prefix, packs))
        rows = [self.sequence(examples, cut) for examples in packs]
        shape = (len(rows), max(len(r["ids"]) for r in rows))
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        labels = np.full(shape, IGNORE, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        branch = np.full(shape, -1, dtype=np.int64)
        for i, row in enumerate(rows):
            n = len(row["ids"])
            ids[i, :n], labels[i, :n] = row["ids"], row["labels"]
            positions[i, :n], branch[i, :n] = row["positions"], row["branch"]
        out: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
        out["tokens"] = sum(len(r["ids"]) for r in rows)
        if max(len(p) for p in packs) > 1:
            out |= {"position_ids": torch.from_numpy(positions), "branch": torch.from_numpy(branch)}
        return out
