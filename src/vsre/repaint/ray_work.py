"""Painting the shards of a plan with Ray, on this machine or a cluster: the same shards, the same ledger.

Ray places the workers and replaces those that die. Every machine must have vsre with the same extras, and see OUT and
the source triplets at the same paths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from vsre.errors import VsreError
from vsre.repaint.diffusion import DiffusionPainter
from vsre.repaint.ledger import Status

if TYPE_CHECKING:
    from vsre.repaint.work import Results, ShardPainter

LOCAL = "local"
"""In place of an address: start Ray on this machine."""


class _Worker:
    """An actor; its painter loads its model once."""

    def __init__(self, shard_painter: ShardPainter) -> None:
        self.shard_painter = shard_painter

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["item"])
        done, error = None, ""
        try:
            done = self.shard_painter.paint(number)
        # Raised here, it would reach the user as pages of tracebacks from two programs.
        except VsreError as told:
            error = str(told)
        counts = {status: done.statuses[status] if done else 0 for status in get_args(Status)}
        return {"number": number, "elsewhere": done is None, "error": error, **counts}


def painted_by_ray(shard_painter: ShardPainter, numbers: Sequence[int], workers: int, address: str) -> Results:
    """(number, result) of each shard as it is done, by `workers` Ray actors; one with a model gets its own GPU if the
    cluster has any. Raises VsreError if Ray is not installed or does not answer, and whatever VsreError a worker
    raises."""
    from vsre.repaint.work import ShardDone

    try:
        import ray
        import ray.data
    except ImportError as error:
        raise VsreError('--ray needs Ray, which is not installed. Install it: pip install "vsre[ray]"') from error
    if not numbers:
        return
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise VsreError(f"--ray {address}: no Ray at this address ({error}). Give an address, or {LOCAL}.") from error
    try:
        gpus = ray.cluster_resources().get("GPU", 0)
        on_gpu = isinstance(shard_painter.painter, DiffusionPainter) and gpus > 0
        ray.data.DataContext.get_current().enable_progress_bars = False
        painted = ray.data.from_items(list(numbers), override_num_blocks=len(numbers)).map(
            _Worker,
            fn_constructor_args=(shard_painter,),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(numbers))),
            num_cpus=1,
            num_gpus=1 if on_gpu else None,
        )
        for row in painted.iter_rows():
            if row["error"]:
                raise VsreError(row["error"])
            counts = Counter({status: int(row[status]) for status in get_args(Status)})
            yield row["number"], None if row["elsewhere"] else ShardDone(row["number"], +counts)
    finally:
        ray.shutdown()
