"""The miner of a trainer: when it mines, what it logs, what it keeps."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pixel_images import PixelEncoder, write_image

import hardmine
import hardmine.hosts.index
from hardmine.errors import HardmineError, IndexMismatch, InputError
from hardmine.hosts import (
    HostMining,
    MiningOptions,
    PartnerTable,
    RecordedSampler,
    SkippedBatches,
    StateFolder,
    ValidationResult,
    find_sampler,
    scalars,
)
from hardmine.metrics import read_scores
from hardmine.mining.need import NeedRules
from hardmine.mining.weights import WeightRules
from hardmine.sampler import HardMiningSampler

NUM_IMAGES = 12
METRICS = {"cat": 0.1, "dog": 0.9}


def make_mining(
    folder: Path,
    *,
    partners: PartnerTable | None = None,
    keeps_boxes: bool = False,
    repeats: int = 1,
    **options: Any,
):
    for row in range(NUM_IMAGES):
        if not (folder / f"{row}.jpg").exists():
            write_image(folder / f"{row}.jpg", row)
    images = hardmine.images_from(
        [folder / f"{row}.jpg" for row in range(NUM_IMAGES)],
        [[[2, 2, 12, 12]]] * NUM_IMAGES,
        [[row % 2] for row in range(NUM_IMAGES)],
        ("cat", "dog"),
        ids=np.arange(NUM_IMAGES) * 10,
        sizes=np.tile([24, 32], (NUM_IMAGES, 1)),
    )
    miner = {"need": NeedRules(policy="below:0.5")}
    options = {"encoder": PixelEncoder(), "clusters": "none", "miner": miner} | options
    return HostMining(
        MiningOptions(**options),
        RecordedSampler(NUM_IMAGES * repeats),
        images=images,
        dataset_ids=np.tile(images.ids, repeats),
        val_images=images,
        measure=keeps_boxes,
        folder=folder / "hardmine",
        device="cpu",
        partners=partners,
    )


def test_an_index_of_more_images_in_another_order_will_do(
    tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [tmp_path / f"{row}.jpg" for row in range(NUM_IMAGES + 3)]
    for row, path in enumerate(paths):
        write_image(path, row)
    ids = np.arange(NUM_IMAGES + 3) * 10
    encoder, place = PixelEncoder(), tmp_path / "whole.hmx"
    whole = hardmine.images_from(paths[::-1], None, None, (), ids=ids[::-1])
    hardmine.build_index(whole, encoder, place, clusters="none", quantize="int8")
    mining = make_mining(tmp_path, encoder=encoder, index=place)
    done = mining.after_validation(read, epochs_done=0, epochs=0)
    assert done is not None
    alone = make_mining(tmp_path, encoder=encoder).after_validation(read, epochs_done=0, epochs=0)
    assert alone is not None
    np.testing.assert_allclose(done.weights, alone.weights, rtol=0.05)  # int8 against float16
    paths[2].write_bytes(paths[2].read_bytes() + b"x")
    hardmine.hosts.index.open_or_build(whole.subset([-3, -1]), encoder, place, clusters="none")
    assert "1 of the 2 image files that were looked at have changed" in caplog.text
    others = hardmine.images_from(paths[:NUM_IMAGES], None, None, (), ids=ids[:NUM_IMAGES] + 1)
    place = tmp_path / "others.hmx"
    hardmine.build_index(others, encoder, place, clusters="none")
    with pytest.raises(IndexMismatch, match="none of their ids is in it: 0 here, 1 there"):
        make_mining(tmp_path, encoder=encoder, index=place)
    names = hardmine.images_from(paths[3:], None, None, (), ids=ids[:NUM_IMAGES])
    place = tmp_path / "names.hmx"
    hardmine.build_index(names, encoder, place, clusters="none")
    with pytest.raises(IndexMismatch, match="12 moved"):  # the ids of other files
        make_mining(tmp_path, encoder=encoder, index=place)


def test_an_index_with_names_that_are_not_utf8_is_opened(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"a.jpg", b"b.jpg", b"c\xff.jpg")]
    for row, name in enumerate(names):
        write_image(tmp_path / "images" / name, row)
    whole = hardmine.load_images(tmp_path / "images")
    assert whole.paths == tuple(names)
    encoder, place = PixelEncoder(), tmp_path / "whole.hmx"
    hardmine.build_index(whole, encoder, place, clusters="none")
    part = whole.subset([1, 2])
    opened = hardmine.hosts.index.open_or_build(part, encoder, place, clusters="none")
    assert opened.ids.tolist() == names[:2]  # no build reads the third


def read(metrics: Any = None) -> ValidationResult:
    return ValidationResult(read_scores(METRICS if metrics is None else metrics))


def test_contexts_cannot_be_found_without_predicted_boxes(tmp_path) -> None:
    with pytest.raises(InputError, match="name the contexts"):
        make_mining(tmp_path, miner={"contexts": "auto"})
    with pytest.raises(InputError, match="measure=False"):
        make_mining(tmp_path, keeps_boxes=True, measure=False, miner={"contexts": "auto"})
    assert not (tmp_path / "hardmine").exists()


def test_a_round_reaches_sampler_partners_and_scalars(tmp_path, caplog) -> None:
    table = PartnerTable(NUM_IMAGES)
    mining = make_mining(tmp_path, partners=table)
    with caplog.at_level(logging.INFO, logger="hardmine.hosts"):
        done = mining.after_validation(read, epochs_done=0, epochs=0)
    weights = mining.sampler.weights
    expected = NUM_IMAGES * weights / weights.sum()
    drawn = Counter(table.rows.tolist())
    assert expected.max() > 1.05
    assert all(abs(drawn[row] - expected[row]) < 1 for row in range(NUM_IMAGES))
    assert any("round 1: weak cat" in line for line in caplog.messages)
    values = scalars(done)
    assert values["hardmine/ap/cat"] == pytest.approx(0.1)
    assert values["hardmine/need/cat"] > 0
    assert "hardmine/need/dog" not in values
    # Kish's effective sample size, from the weights themselves.
    assert values["hardmine/effective_size"] == pytest.approx(
        weights.sum() ** 2 / (weights**2).sum()
    )
    assert values["hardmine/moved_share"] == pytest.approx(
        np.abs(expected - 1).sum() / 2 / NUM_IMAGES
    )


def test_validations_are_mined_at_their_interval(tmp_path) -> None:
    mining = make_mining(tmp_path, begin=1, interval=2)
    mined = [mining.after_validation(read, epochs_done=0, epochs=0) is not None for _ in range(5)]
    assert mined == [False, True, False, True, False]
    with pytest.raises(InputError, match="interval must be at least 1"):
        MiningOptions(interval=0)
    for begin in (-1, 0.75, float("nan")):
        message = f"begin must be a number of validations, got {begin}; to mine in the last quarter"
        with pytest.raises(InputError, match=message):
            MiningOptions(begin=begin)  # type: ignore[arg-type]


def test_the_end_of_the_training_is_mined_between_two_rounds_too(tmp_path, caplog) -> None:
    options = {"keeps_boxes": True, "interval": 4}
    mining = make_mining(tmp_path, **options)
    with caplog.at_level(logging.INFO, logger="hardmine.hosts"):
        done = [mine_with_boxes(mining, number) for number in range(1, 7)]
    assert [one is not None for one in done] == [True, False, False, False, True, True]
    assert [one.inputs.weights.look_alone for one in done if one] == [False, False, True]
    assert "weak cat; draws follow only the look of what is missed" in caplog.messages[-1]
    state = mining.state([mining.sampler.state_dict()])
    mining = make_mining(tmp_path, **options)
    mining.load_state(state)
    assert mine_with_boxes(mining, 7) is None


@pytest.mark.parametrize(
    ("planned", "epochs", "drawn_by"),
    [(24, 14, "only the look of what is missed"), (12, 100, "equally often until 75 %")],
)
def test_rules_that_a_resume_changed_are_mined_at_once(tmp_path, planned, epochs, drawn_by) -> None:
    options = {"keeps_boxes": True, "interval": 5}
    mining = make_mining(tmp_path, **options)
    for number in range(1, 12):
        mine_with_boxes(mining, number, epochs=planned)
    resumed = make_mining(tmp_path, **options)
    resumed.load_state(mining.state([mining.sampler.state_dict()]))
    done = mine_with_boxes(resumed, 12, epochs=epochs)
    assert done is not None
    assert drawn_by in done.drawn_by
    assert mine_with_boxes(resumed, 13, epochs=epochs) is None


def test_a_data_set_that_repeats_images_draws_them_often(tmp_path) -> None:
    """As MMDetection's RepeatDataset does: two epochs of six are twelve passes."""
    once, often = (make_mining(tmp_path, keeps_boxes=True, repeats=repeats) for repeats in (1, 6))
    assert mine_with_boxes(once, 1, epochs=8).drawn_by == ""
    assert "equally often" in mine_with_boxes(often, 1, epochs=8).drawn_by


def test_without_predicted_boxes_the_end_is_drawn_by_classes_and_says_so(tmp_path) -> None:
    mining = make_mining(tmp_path)
    for done, said in ((1, False), (6, True)):
        found = mining.after_validation(read, epochs_done=done, epochs=8)
        assert found is not None
        assert found.inputs.weights == WeightRules()
        assert any("what is missed could not be looked at" in note for note in found.notes) == said


def mine_with_boxes(mining: HostMining, epochs_done: int, epochs: float = 8) -> Any:
    """Of the twelve images, the first six were found."""
    boxes = [
        {"image_id": 10 * row, "category_id": row % 2, "bbox": [2, 2, 10, 10], "score": 0.9}
        for row in range(NUM_IMAGES // 2)
    ]
    return mining.after_validation(
        lambda: ValidationResult(read_scores(METRICS), boxes),
        epochs_done=epochs_done,
        epochs=epochs,
    )


def broken() -> ValidationResult:
    raise KeyError("the metric is gone")


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (lambda: ValidationResult(None), "nothing was detected"),
        (lambda: read({"cat": -1, "dog": None}), "all classes have AP NaN or -1"),
        (broken, "cannot mine by this validation; .*the metric is gone"),
        (lambda: read({"cow": 0.3}), "round 2 failed; the weights stay"),
    ],
    ids=["nothing", "unknown", "unreadable", "strangers"],
)
def test_a_validation_without_use_leaves_the_weights(tmp_path, caplog, reader, message) -> None:
    mining = make_mining(tmp_path)
    mining.after_validation(read, epochs_done=0, epochs=0)
    before = mining.sampler.weights.copy()
    assert mining.after_validation(reader, epochs_done=0, epochs=0) is None
    np.testing.assert_array_equal(mining.sampler.weights, before)
    assert mining.validations == 2
    assert len([line for line in caplog.messages if re.search(message, line)]) == 1


@pytest.mark.parametrize("reader", [broken, lambda: read({"cow": 0.3})])
def test_strict_raises(tmp_path, reader) -> None:
    with pytest.raises((KeyError, HardmineError)):
        make_mining(tmp_path, strict=True).after_validation(reader, epochs_done=0, epochs=0)


def test_a_warning_is_logged_once(tmp_path, caplog) -> None:
    mining = make_mining(tmp_path)
    for _ in range(3):
        mining.after_validation(lambda: ValidationResult(None), epochs_done=0, epochs=0)
    assert len(caplog.messages) == 1


def test_a_state_of_another_version_is_refused(tmp_path) -> None:
    mining = make_mining(tmp_path)
    state = mining.state([mining.sampler.state_dict()])
    with pytest.raises(InputError, match="saved mining lacks validated_at"):
        mining.load_state({name: state[name] for name in state.keys() - {"validated_at"}})


def test_a_table_of_partners_starts_with_the_weights_of_the_sampler(tmp_path) -> None:
    table = PartnerTable(NUM_IMAGES)
    table.set_weights([0.0] * 6 + [1.0] * 6)
    make_mining(tmp_path, partners=table)
    assert sorted(table.rows.tolist()) == list(range(NUM_IMAGES))


def test_states_of_an_abandoned_run_are_not_those_of_one_that_resumed_before(tmp_path) -> None:
    states = StateFolder(tmp_path / "states")
    first = make_mining(tmp_path)
    saved = []
    for number in (1, 2, 3):
        first.after_validation(read, epochs_done=number, epochs=8)
        saved.append(first.state([first.sampler.state_dict()]))
        first.save_state(states, number, saved[-1])
    resumed = make_mining(tmp_path)
    resumed.load_state(states.newest(1, saved[0]))
    checkpoint = resumed.state([resumed.sampler.state_dict()])  # at 3, without a validation
    newest = states.newest(3, checkpoint)
    assert newest is not None
    assert newest["validations"] == 1


def test_a_state_restores_weights_partners_and_place(tmp_path) -> None:
    mining = make_mining(tmp_path)
    stream = iter(mining.sampler)
    first = [next(stream) for _ in range(5)]
    mining.after_validation(read, epochs_done=0, epochs=0)
    state = mining.state([mining.sampler.state_dict(used=5)])
    table = PartnerTable(NUM_IMAGES)
    resumed = make_mining(tmp_path, partners=table)
    resumed.load_state(state)
    assert resumed.validations == 1
    np.testing.assert_array_equal(resumed.sampler.weights, mining.sampler.weights)
    assert sorted(table.rows.tolist()) != list(range(NUM_IMAGES))
    assert first + list(resumed.sampler) == list(HardMiningSampler(NUM_IMAGES))


def test_a_checkpoint_without_hardmine_leaves_a_warning(tmp_path, caplog) -> None:
    make_mining(tmp_path).load_state(None)
    assert "saved without hardmine" in caplog.text


def test_the_sampler_is_found_in_a_loader() -> None:
    sampler = HardMiningSampler(4)
    plain = torch.utils.data.DataLoader(list(range(4)), sampler=sampler)
    grouped = torch.utils.data.DataLoader(
        list(range(4)), batch_sampler=torch.utils.data.BatchSampler(sampler, 2, drop_last=False)
    )
    assert find_sampler(plain, advice="") is find_sampler(grouped, advice="") is sampler
    with pytest.raises(InputError, match="draws with RandomSampler; use ours"):
        find_sampler(torch.utils.data.DataLoader([1], shuffle=True), advice="use ours")


def test_skipped_batches_are_not_drawn() -> None:
    drawn = iter([1, 2, 3])
    assert list(SkippedBatches(drawn, 2)) == [None, None, 1, 2, 3]
