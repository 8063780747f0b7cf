"""Repaint a set of triplets: plan, paint, gather. The same way for all painters, on one machine or many.

OUT/plan/      what is to be painted, fixed before painting begins (`vsre.repaint.plan_files`)
OUT/ledger/    one row per job (`vsre.repaint.ledger`), and OUT/shards/ the pictures
OUT/part-*     the new triplets, and OUT/repaint.json counts of what was made (`vsre.repaint.finish`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vsre.errors import VsreError
from vsre.repaint.finish import DamagedShards, finish, finished
from vsre.repaint.judge import Judge
from vsre.repaint.painter import SETTINGS, Painter, Vocabulary
from vsre.repaint.plan_files import read_plan
from vsre.repaint.planning import make_plan
from vsre.repaint.safety import SafetyChecker, SafetySpec
from vsre.repaint.specs import Scenes, VerifierSpec
from vsre.repaint.verify import Policy, Verifier, policy_of
from vsre.repaint.work import ShardPainter, work


def repaint(
    triplets_path: Path | str,
    out: Path | str,
    *,
    settings: Sequence[str] = SETTINGS,
    per_triplet: int = 1,
    seed: int = 0,
    limit: int | None = None,
    painter: Callable[[Vocabulary], Painter] | None = None,
    scenes: Path | str | None = None,
    captions_per_image: int = 8,
    workers: int = 1,
    ray: str | None = None,
    allow_held_out: bool = False,
    held_out: Sequence[Path] = (),
    verifier: Verifier | VerifierSpec | None = None,
    safety: SafetySpec | None = None,
    instances: Sequence[Path] = (),
    shard_jobs: int | None = None,
    planned: Callable[[ShardPainter], object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Paint `per_triplet` pictures per triplet and setting; returns (and writes to repaint.json) what was made.

    `painter` makes the painter from the vocabulary it may use; the default paints scenes, and `scenes` is then the
    scenes.jsonl of the world that the triplets come from (without it, layouts are approximated from boxes). `limit`:
    paint from so many triplets only, spread evenly over the set. `captions_per_image`: maximum number of further
    captions kept per picture; see `balance`. `planned` is called between planning and painting, for example to show the
    cost; `progress(done, total)` counts jobs. The same arguments give the same files, whatever `workers` and `ray` are
    (see `work`).

    Called again after a kill, it continues with what is left and repaints what is damaged. If OUT has this very plan,
    painted and gathered, nothing is done.

    Nothing is painted from rows, pictures or captions of a split called test or dev: of the source itself (which is an
    error), of folders of those names beside it, and of the folders in `held_out`. `verifier` looks at every picture,
    and only what it confirms is written; without one, what a painter did not draw itself but was only asked for is
    written as `intended`. `safety` names a checker of pictures, `instances` COCO files with the photos' licences.
    `shard_jobs` is roughly how many jobs are painted before they are written.

    Raises VsreError if the source holds rows of a test or dev split (unless `allow_held_out`), for settings that the
    painter does not have, if OUT has another plan, and if every job was refused.
    """
    if workers < 1 or captions_per_image < 0:
        raise VsreError("workers must be at least 1, captions_per_image at least 0.")
    plan, ours = make_plan(
        Path(triplets_path),
        Path(out),
        painter or Scenes(scenes=None if scenes is None else Path(scenes)),
        settings=settings,
        per_triplet=per_triplet,
        seed=seed,
        limit=limit,
        verifier=verifier,
        safety=safety,
        allow_held_out=allow_held_out,
        held_out=held_out,
        instances=instances,
        shard_jobs=shard_jobs,
    )
    if (done := finished(plan, captions_per_image)) is not None:
        return done
    looks = verifier() if isinstance(verifier, VerifierSpec) else verifier
    shard_painter = ShardPainter(plan, ours, _judge(looks, safety), Path(triplets_path))
    if planned is not None:
        planned(shard_painter)
    for last in (False, True):
        work(shard_painter, workers=workers, ray=ray, progress=progress)
        try:
            return finish(plan, captions_per_image=captions_per_image)
        except DamagedShards:
            if last:
                raise
    raise AssertionError


def shard_painter_of(out: Path | str, *, triplets: Path | None = None) -> ShardPainter:
    """The painter of OUT's shards, recreated from what the plan says; `triplets` is where the source is on this
    machine, if it has moved.

    Raises VsreError if there is no plan, if the painter or verifier was a Python object when it was planned, and if the
    weights have changed since.
    """
    plan = read_plan(out)
    made = plan.head.made_with
    if made.painter is None or (made.verifier is None) != (plan.head.verifier is None):
        raise VsreError(
            f"{out}: its painter or verifier was made in Python and cannot be recreated from the plan. Continue by "
            "calling vsre.repaint.repaint with the same arguments."
        )
    verifier = made.verifier() if made.verifier is not None else None
    if verifier is not None and verifier.name != plan.head.verifier:
        raise VsreError(f"{out}: planned for the verifier {plan.head.verifier}, but this is {verifier.name}.")
    if verifier is not None and policy_of(verifier) != plan.head.policy:
        raise VsreError(f"{out}: {_other_policy(plan.head.policy, policy_of(verifier))} Plan again in another folder.")
    painter = made.painter(plan.vocabulary())
    return ShardPainter(plan, painter, _judge(verifier, made.safety), triplets or made.triplets)


def _other_policy(there: Policy | None, here: Policy) -> str:
    if there is None:
        return (
            "the plan is from an earlier version of vsre, which did not record what becomes of its verifier's verdicts."
        )
    unlike = [f"{k}: {v!r} there, {getattr(here, k)!r} now" for k, v in there if v != getattr(here, k)]
    return f"planned with another policy of its verifier ({'; '.join(unlike)})."


def _judge(verifier: Verifier | None, safety: SafetySpec | None) -> Judge:
    return Judge(verifier, SafetyChecker(safety) if safety is not None else None)
