"""The batch at which a run stopped, saved for a person to inspect: names as JSON, tensors as safetensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vsre.train.checkpoints import write_json
from vsre.train.processes import processes

BAD_BATCH = "bad-batch"


def save_bad_batch(
    folder: Path, passes: Sequence[Mapping[str, Any]], names: Sequence[str], facts: Mapping[str, Any]
) -> Path:
    """Write FOLDER/bad-batch.json (`facts` and the questions' names) and bad-batch.safetensors; returns the first.

    A tensor is called PASS.INPUT, such as 0.input_ids, 0.labels, 0.encoder_features.clip. If there are several
    processes, each writes its own bad-batch-RANK.
    """
    state = processes()
    name = BAD_BATCH if state.num_processes == 1 else f"{BAD_BATCH}-{state.process_index}"
    tensors = {key: t.detach().cpu().contiguous() for n, each in enumerate(passes) for key, t in _flat(each, f"{n}")}
    save_file(tensors, folder / f"{name}.safetensors")
    write_json(folder / f"{name}.json", {**facts, "questions": list(names)})
    return folder / f"{name}.json"


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in values.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}.{key}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}.{key}")
