from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from train_world import load, write_world

from tiny_models import tiny_llava
from vsre.errors import VsreError
from vsre.train import ChatEncoder, DataSource, Packer
from vsre.train.collate import Collator
from vsre.train.data import PackedQuestions, PackSampler
from vsre.train.stages import parse_stages
from vsre.train.store import Store, open_store
from vsre.triplets import read_triplets, write_triplets


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(tiny_llava(tmp_path_factory.mktemp("llava")))[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    return DataSource(**write_world(tmp_path_factory.mktemp("world")))


def questions(source: DataSource) -> list[dict[str, Any]]:
    return pq.read_table(source.questions / "part-00000.parquet").to_pylist()


def test_a_store_holds_every_question_and_each_image_once(source: DataSource, processor: Any, tmp_path: Path) -> None:
    encoder = ChatEncoder(processor)
    made = open_store(source, encoder, tmp_path / "cache")
    again = open_store(source, encoder, tmp_path / "cache")
    images = {t.image_id: t.image for t in read_triplets(source.triplets)}
    rows = questions(source)
    assert len(made) == len(again) == len(rows)
    for i in (0, 7, len(rows) - 1):
        example = again.example(i)
        assert rows[i]["prompt"] in encoder.tokenizer.decode(example.ids)
        assert again.image(again.image_of[i]) == images[rows[i]["image_id"]]
    assert len(again.image_offsets) - 1 == len(images)
    assert again.question_ids([3, 0]) == [f"{rows[i]['key']}/{rows[i]['template']}" for i in (3, 0)]
    assert isinstance(again.tokens, np.memmap) and isinstance(again.image_bytes, np.memmap)


def test_too_long_questions_are_set_aside_and_counted(source: DataSource, processor: Any, tmp_path: Path) -> None:
    encoder = ChatEncoder(processor)
    longest = int(np.diff(open_store(source, encoder, tmp_path / "a").offsets).max())
    limit = longest + encoder.visual_tokens - 2
    store = open_store(source, encoder, tmp_path / "b", limit)
    aside = [json.loads(line) for line in (tmp_path / "b" / "set-aside.jsonl").read_text().splitlines()]
    assert store.meta["set_aside"] == len(aside) == len(questions(source)) - len(store) > 0
    assert str(limit) in aside[0]["reason"]
    named = questions(source)[aside[0]["row"] - 1]
    assert aside[0]["id"] == f"{named['key']}/{named['template']}"
    with pytest.raises(VsreError, match="no usable question"):
        open_store(source, encoder, tmp_path / "c", 40)
    assert not (tmp_path / "c").exists()


def rewritten(source: DataSource, folder: Path, **change: Any) -> Path:
    rows = questions(source)
    rows[5] |= change
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "q.parquet")
    return folder


def test_a_question_without_its_triplet_is_named(source: DataSource, processor: Any, tmp_path: Path) -> None:
    folder = rewritten(source, tmp_path / "q", key="0123456789abcdef")
    with pytest.raises(VsreError, match=r"question 0123456789abcdef/w0 \(row 6\)"):
        open_store(DataSource(triplets=source.triplets, questions=folder), ChatEncoder(processor), tmp_path / "c")


def test_a_triplet_without_image_is_named(source: DataSource, processor: Any, tmp_path: Path) -> None:
    write_triplets(tmp_path / "t", [t.replace(image=None) for t in read_triplets(source.triplets)])
    with pytest.raises(VsreError, match="has no image"):
        open_store(
            DataSource(triplets=tmp_path / "t", questions=source.questions),
            ChatEncoder(processor),
            tmp_path / "c",
        )


def test_a_folder_without_questions_is_refused(source: DataSource, processor: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, said in ((tmp_path / "empty", "no Parquet files"), (source.triplets, "not a question file")):
        with pytest.raises(VsreError, match=said):
            open_store(DataSource(triplets=source.triplets, questions=folder), ChatEncoder(processor), tmp_path / "c")


@pytest.fixture(scope="module")
def data(source: DataSource, processor: Any, tmp_path_factory: pytest.TempPathFactory) -> PackedQuestions:
    store = open_store(source, ChatEncoder(processor), tmp_path_factory.mktemp("cache") / "c")
    return PackedQuestions([store, Store(store.folder)])


def test_every_question_once_an_epoch_with_its_own_image(data: PackedQuestions) -> None:
    sampler = PackSampler(data, 4, seed=3, batch=2)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        packs = list(sampler)
        assert len(packs) == len(sampler)
        assert sorted(np.concatenate(packs).tolist()) == list(range(len(data)))
        assert all(len(set(data.image_of[p])) == 1 and len(p) <= 4 for p in packs)


def test_order_is_fixed_by_seed_and_epoch(data: PackedQuestions) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = PackSampler(data, 4, seed, batch=2)
        sampler.set_epoch(epoch)
        return [p.tolist() for p in sampler]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_the_longest_come_first(data: PackedQuestions) -> None:
    packs = list(PackSampler(data, 4, seed=3, batch=3))
    tokens = [int(data.lengths[p].sum()) for p in packs]
    assert tokens[:3] == sorted(tokens, reverse=True)[:3]
    assert tokens[3:] != sorted(tokens[3:], reverse=True)


def skewed() -> Any:
    """997 images with 1 to 12 questions each, a tenth of the questions eight times as long."""
    generator = np.random.default_rng(0)
    image_of = np.repeat(np.arange(997), generator.integers(1, 13, 997))
    lengths = generator.integers(10, 40, len(image_of)) * np.where(generator.random(len(image_of)) < 0.1, 8, 1)
    return PackedSizes(image_of, lengths)


class PackedSizes:
    """What PackSampler looks at in a data set."""

    def __init__(self, image_of: np.ndarray, lengths: np.ndarray) -> None:
        self.image_of, self.lengths = image_of, lengths

    def __len__(self) -> int:
        return len(self.lengths)


def waste(tokens: np.ndarray, micro: int, ranks: int) -> tuple[float, float]:
    """The share of padding, and by how much the mean rank's work falls short of the busiest one's, step by step."""
    steps = tokens[: len(tokens) // (micro * ranks) * micro * ranks].reshape(-1, ranks, micro)
    computed = steps.max(2) * micro  # (steps, ranks), tokens with padding
    return 1 - steps.sum() / computed.sum(), 1 - computed.mean(1).sum() / computed.max(1).sum()


def test_little_padding_and_equal_work_for_every_rank() -> None:
    data: Any = skewed()
    random = np.random.default_rng(1)
    for epoch in (0, 1):
        sampler = PackSampler(data, 6, seed=0, batch=16)
        sampler.set_epoch(epoch)
        packs = list(sampler)
        assert sorted(np.concatenate(packs).tolist()) == list(range(len(data)))
        tokens = np.array([data.lengths[p].sum() for p in packs])
        padding, idle = waste(tokens, micro=4, ranks=4)
        random_padding, random_idle = waste(random.permutation(tokens), micro=4, ranks=4)
        assert padding < 0.08 and padding < random_padding / 4
        assert idle < 0.12 and idle < random_idle / 2.5
        steps = tokens[16 : len(tokens) // 16 * 16].reshape(-1, 16).mean(1)
        assert abs(np.corrcoef(steps, np.arange(len(steps)))[0, 1]) < 0.35  # batches are not in order of length


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    weights=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    batch=st.integers(1, 8),
    epochs=st.integers(1, 4),
)
def test_shares_decide_how_many_packs_are_of_each_store(
    sizes: list[int], weights: list[int], batch: int, epochs: int
) -> None:
    """Each picture has three questions in two packs; a store's packs come in turn, none twice before all came once."""
    stores = np.repeat(np.arange(len(sizes)), sizes)  # the store of each picture
    data: Any = PackedSizes(np.repeat(np.arange(len(stores)), 3), np.full(3 * len(stores), 7))
    data.bases = np.cumsum([0, *(3 * size for size in sizes)])
    shares = weights[: len(sizes)]
    sampler = PackSampler(data, 2, 5, batch, shares=shares)
    seen: Counter[tuple[int, int]] = Counter()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        packs = list(sampler)
        assert len(packs) == len(sampler) == 2 * len(stores)
        of = Counter(int(stores[data.image_of[pack[0]]]) for pack in packs)
        for store, share in enumerate(shares):
            exact = len(packs) * share / sum(shares)
            raised = sum(len(packs) * other / sum(shares) < 1 for other in shares)  # a store is never left out
            assert of[store] >= 1 and -1 - raised < of[store] - exact < 1
        seen.update((int(data.image_of[pack[0]]), len(pack)) for pack in packs)
        assert [p.tolist() for p in packs] == [p.tolist() for p in sampler]
    for store in range(len(sizes)):
        counts = [seen[image, size] for image in np.flatnonzero(stores == store) for size in (1, 2)]
        assert max(counts) - min(counts) <= 1


def test_questions_a_pack_follow_the_shares() -> None:
    """Two pictures of three questions each, and two of one."""
    data: Any = PackedSizes(np.array([0, 0, 0, 1, 1, 1, 2, 3]), np.full(8, 7))
    data.bases = np.array([0, 6, 8])
    assert PackSampler(data, 3, 0, 1).questions_a_pack == 2
    sampler = PackSampler(data, 3, 0, 1, shares=[3, 1])
    assert sampler.questions_a_pack == np.mean([len(pack) for pack in sampler]) == 2.5


def test_as_many_shares_as_data(source: DataSource) -> None:
    with pytest.raises(VsreError, match="shares has 1 numbers for 2 entries of data"):
        parse_stages([{"name": "tune", "train": ["adapters"], "data": [source, source], "shares": [1]}])


def test_a_batch_names_its_questions_and_keeps_few_pictures(data: PackedQuestions, processor: Any) -> None:
    encoder = ChatEncoder(processor)
    packer = Packer(image_token_id=encoder.image_token_id, visual_tokens=encoder.visual_tokens, pad_id=encoder.pad_id)
    one = 3 * 96 * 96 * 4
    collate = Collator(data, packer, processor.image_processor, cache_bytes=2 * one)
    packs = list(PackSampler(data, 4, seed=0, batch=1))
    batch = collate([data[p] for p in packs])
    assert batch["pixel_values"].shape == (len(packs), 3, 96, 96)
    assert batch["rows"] == np.concatenate(packs).tolist()
    assert batch["tokens"] == int((batch["input_ids"] != encoder.pad_id).sum())
    assert len(collate._cache) == 2
    once_more = collate([data[p] for p in packs])
    assert once_more["pixel_values"].equal(batch["pixel_values"])


def test_another_picture_in_a_triplets_place_is_named(source: DataSource, processor: Any, tmp_path: Path) -> None:
    triplets = list(read_triplets(source.triplets))
    other = triplets[-1].image
    write_triplets(tmp_path / "t", [triplets[0].replace(image=other), *triplets[1:]])
    changed = DataSource(triplets=tmp_path / "t", questions=source.questions)
    with pytest.raises(VsreError, match=rf"image of triplet {triplets[0].key} \(0\.png\) is not the one"):
        open_store(changed, ChatEncoder(processor), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_broken_picture_is_named(
    source: DataSource, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ChatEncoder(processor)
    store = open_store(source, encoder, tmp_path / "c")
    monkeypatch.setattr(store, "image", lambda _: b"not a picture")
    data = PackedQuestions([store])
    packer = Packer(image_token_id=encoder.image_token_id, visual_tokens=encoder.visual_tokens, pad_id=encoder.pad_id)
    pack = next(iter(PackSampler(data, 1, 0, 1)))
    keys = {questions(source)[row]["key"] for row in np.flatnonzero(data.image_of == data.image_of[pack[0]])}
    with pytest.raises(VsreError, match=f"image of question ({'|'.join(keys)})/"):
        Collator(data, packer, processor.image_processor)([data[pack]])
