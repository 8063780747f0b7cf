from pathlib import Path

import pytest

from vsre.errors import VsreError
from vsre.relations.photo_rules import shipped_rules
from vsre.repaint.verify import SceneTruth
from vsre.verify import build_verifier
from vsre.verify.config import PRESETS, load_config
from vsre.verify.rules import would_help


def test_every_default_of_a_preset_has_a_source() -> None:
    """What a preset says itself and takes over: each model and each number."""
    assert {"coco", "scenes", "grounding-dino"} <= set(PRESETS.names())
    for name in PRESETS.names():
        config = load_config(name)
        wanted = set()
        for part in ("closed", "open", "depth", "masks"):
            given = getattr(config, part)
            if given is not None:
                wanted |= {
                    f"{part}.{field}" for field in ("model", "present", "absent", "relations") if hasattr(given, field)
                }
        assert wanted <= config.sources.keys(), name
        assert "torchvision" not in str(config)


def test_presets_ask_for_depth_and_outlines_where_a_rule_reads_them() -> None:
    config = load_config("coco")
    assert config.depth is not None and config.masks is not None
    for part, kind in ((config.depth, "depth"), (config.masks, "masks")):
        assert all(kind in would_help(shipped_rules(), relation) for relation in part.relations)


def test_a_file_is_as_good_as_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: coco\nclosed: {model: mine/detector, present: 0.6}\nopen: {present: 0.2}\nmasks: null\n"
        "depth: {model: other/depth}\npolicy: {on_fail: relabel}\n"
    )
    mine, base = load_config(str(file)), load_config("coco")
    assert mine.closed is not None and (mine.closed.model, mine.closed.present, mine.closed.absent) == (
        "mine/detector",
        0.6,
        0.3,
    )
    assert mine.open is not None and base.open is not None and mine.open.revision == base.open.revision
    assert mine.depth is not None and mine.depth.revision is None, "another model has other commits"
    assert mine.masks is None and base.masks is not None
    assert mine.policy.on_fail == "relabel" and mine.policy.object_iou == base.policy.object_iou
    assert mine.changed(device="cpu", batch_size=None).device == "cpu"
    assert mine.changed(batch_size=None).batch_size == mine.batch_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: cocoa", "none of coco"),
        ("closed: {model: a/b, present: 0.3, absent: 0.5}", "absent 0.5 is above present 0.3"),
        ("open: {model: a/b, present: 0.3, absent: 0.1, prompt: cat}", "the prompt needs {} once"),
        ("depth: {model: a/b, relations: [betwixt]}", "betwixt: no relation of VSR"),
        ("judge: {model: a, server: 'http://localhost', revision: x}", "the server's own business"),
        ("closed: {model: a/b, present: 0.5}", "closed.absent: Field required"),
        ("colsed: {model: a/b}", "colsed: Extra inputs"),
        ("- a list", "a verifier is a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(VsreError) as error:
        load_config(str(file))
    assert message in str(error.value) and str(file) in str(error.value)


def test_what_is_not_there() -> None:
    with pytest.raises(VsreError, match="There is no verifier 'cocoa'"):
        load_config("cocoa")
    with pytest.raises(VsreError, match="no such file"):
        load_config("nowhere.yaml")
    with pytest.raises(VsreError, match="no detector: configure"):
        build_verifier(load_config("coco").model_copy(update={"closed": None, "open": None}))
    with pytest.raises(VsreError, match="device"):
        build_verifier("coco", device="warp")


def test_scene_truth_is_a_verifier_by_name() -> None:
    assert isinstance(build_verifier("scene-truth", device="cpu", batch_size=None), SceneTruth)
