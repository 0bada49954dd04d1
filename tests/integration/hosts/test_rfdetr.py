"""The lines of ``docs/hosts/rfdetr.md`` are run with RF-DETR itself, on generated scenes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_scenes import BATCHES, NUM_IMAGES, load_scenes, miner_options
from pixel_images import PixelEncoder
from torch.utils.data import DistributedSampler

from hardmine.history import read_rounds
from hardmine.hosts import image_ids, load_state

pytest.importorskip("rfdetr", reason='needs pip install "rfdetr[train]"')

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/hosts/rfdetr.md"
SMALL_MODEL = (
    "pretrain_weights=None, resolution=64, num_queries=20, num_select=20, dec_layers=1, "
    'group_detr=1, device="cpu", '
)
SMALL_TRAINING = (
    "batch_size=4, grad_accum_steps=1, num_workers=0, multi_scale=False, expanded_scales=False, "
    "pack_targets=False, run_test=False, tensorboard=False, progress_bar=None, "
    'accelerator="cpu", checkpoint_interval=1'
)


@pytest.fixture(scope="module")
def folder(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes in Roboflow's folders."""
    load_scenes(scenes)
    root = tmp_path_factory.mktemp("roboflow")
    for split, name in (("train", "train"), ("val", "valid")):
        [file] = (scenes / "annotations").glob(f"*{split}*")
        content = json.loads(file.read_text())
        (root / name).mkdir()
        for image in content["images"]:
            image["file_name"] = Path(image["file_name"]).name
            target = scenes / split / "images" / image["file_name"]
            (root / name / image["file_name"]).symlink_to(target)
        (root / name / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def train(folder: Path, work: Path, *, resume: Path | None = None) -> list[int]:
    """Run the document's lines with a small model; returns the ids of the trained images."""
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    trained: list[int] = []
    changes = {
        '"data"': repr(str(folder)),
        '"data.hmx"': repr(str(folder / "index.hmx")),
        'output_dir="output", batch_size=4, grad_accum_steps=4, epochs=50': (
            f"output_dir={str(work)!r}, epochs=2, resume={resume and str(resume)!r}, "
            + SMALL_TRAINING
        ),
        "RFDETRNanoConfig(": f"RFDETRNanoConfig({SMALL_MODEL}",
        'encoder="RN50x64/openai",': (
            f'encoder=ENCODER, clusters="none", miner=MINER, folder={str(work / "hardmine")!r},'
        ),
        "trainer.fit(": "trainer.callbacks.append(Record())\ntrainer.fit(",
    }
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    from pytorch_lightning import Callback

    class Record(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            trained.extend(int(each) for each in image_ids(batch[1]))

    names = {"ENCODER": PixelEncoder(), "MINER": miner_options(), "Record": Record}
    exec(compile(code, DOCUMENT.name, "exec"), names)  # the document is ours
    return trained


def test_the_lines_mine_and_resume(folder: Path, tmp_path: Path, scenes: Path) -> None:
    images, _ = load_scenes(scenes)
    trained = train(folder, tmp_path / "whole")
    assert len(trained) == 2 * NUM_IMAGES
    plain = DistributedSampler(range(NUM_IMAGES), num_replicas=1, rank=0, seed=0)
    assert trained[:NUM_IMAGES] == [int(images.ids[row]) for row in plain]
    rounds = read_rounds(tmp_path / "whole" / "hardmine" / "rounds.jsonl")
    assert all(done.inputs.ratios.density is not None for done in rounds)
    state = load_state(tmp_path / "whole" / "hardmine" / "states" / f"batch_{BATCHES}.pth")
    weights = state["miner"]["weights"].numpy()
    expected = NUM_IMAGES * weights / weights.sum()
    assert expected.max() > 1.2
    second = trained[NUM_IMAGES:]
    counts = np.array([second.count(image) for image in images.ids.tolist()])
    assert (np.abs(counts - expected) < 1).all()
    first = tmp_path / "whole" / "checkpoint_0.ckpt"
    assert train(folder, tmp_path / "resumed", resume=first) == second
