"""What a run began with: told in its record, never compared, and named by the card of an export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from train_world import write_world
from typer.testing import CliRunner

from tiny_models import tiny_llava, tiny_llm
from vsre.cli import app
from vsre.errors import VsreError
from vsre.export import export_model
from vsre.export.training import began_with
from vsre.recipes.start import open_model
from vsre.train.fingerprint import claim_folder, note_start


def test_the_start_is_no_part_of_what_is_compared(tmp_path: Path) -> None:
    claim_folder(tmp_path, {"seed": 1, "stages": []}, resume=False)
    note_start(tmp_path, {"checkpoint": "zoo:base"})
    claim_folder(tmp_path, {"seed": 1, "stages": []}, resume=True)
    with pytest.raises(VsreError, match="seed: 1 there, 2 now"):
        claim_folder(tmp_path, {"seed": 2, "stages": []}, resume=True)
    note_start(tmp_path, {"checkpoint": "the same, under another path"})
    assert began_with(tmp_path, tmp_path) == {"checkpoint": "zoo:base"}


def test_the_card_names_it_and_an_old_run_goes_on(tmp_path: Path) -> None:
    base = tiny_llava(tmp_path / "base")
    source = {kind: str(path) for kind, path in write_world(tmp_path / "world", images=2).items()}
    stage = {"name": "tune", "train": ["adapters"], "data": [source], "lr": 1e-3, "batch_images": 2, "max_steps": 1}
    (tmp_path / "stages.yaml").write_text(yaml.safe_dump([stage]))
    run, record = tmp_path / "run", tmp_path / "run" / "run.json"
    command = ["train", str(tmp_path / "stages.yaml"), "-o", str(run), "--checkpoint", str(base), "--no-feature-cache"]

    def train() -> dict[str, object]:
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        return json.loads(record.read_text())

    whole = train()
    assert whole["start"] == {"checkpoint": str(base)}
    record.write_text(json.dumps({key: value for key, value in whole.items() if key != "start"}))
    assert began_with(run / "01-tune" / "model") == {}
    assert train() == whole
    assert began_with(run / "01-tune" / "model") == whole["start"]
    export_model(run / "01-tune" / "model", tmp_path / "out")
    assert f"| trained from | {base.name} |" in (tmp_path / "out" / "README.md").read_text()


def test_what_is_no_image_text_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(VsreError, match=r"llm: cannot be loaded .*no processor with.*build on a language model"):
        open_model(str(tiny_llm(tmp_path / "llm")), None, [], seed=0)
    llava = tiny_llava(tmp_path)
    for file in llava.iterdir():
        if file.suffix == ".json" and file.name != "config.json":
            file.unlink()
    with pytest.raises(VsreError, match="llava: cannot be loaded as an image-text model"):
        open_model(str(llava), None, [], seed=0)


@pytest.mark.parametrize("file", ["config.json", "processor_config.json"])
def test_code_of_a_checkpoint_is_not_even_asked_about(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_llava(tmp_path)
    names = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor")
    own = {"auto_map": dict.fromkeys(names, "own.Own"), "model_type": "own", "processor_class": "Own"}
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | own))
    (folder / "own.py").write_text("raise SystemExit('was run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(VsreError, match="llava: cannot be loaded as an image-text model"):
        open_model(str(folder), None, [], seed=0)
