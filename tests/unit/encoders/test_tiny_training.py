"""The training of the tiny CLIP: loss, truth of captions about views, and a short run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss
from tiny_training.recipe import Cycle, Phase
from tiny_training.scene_pool import CLAIMS, ScenePool, truth_table
from tiny_training.tower import HalfTower
from tiny_training.train import contrastive_loss, random_claim_vectors, train
from tiny_training.vocabulary import write_vocabulary

from hardmine.encoders.tiny import make_model
from hardmine.scenes import generate_scene
from hardmine.scenes.captions import Caption


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ScenePool:
    return ScenePool(tmp_path_factory.mktemp("pool") / "p", seed=4, count=40, processes=1)


def test_with_one_true_pair_each_the_loss_equals_clip_s() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.nn.functional.normalize(
        torch.randn(2, 8, 16, generator=generator), dim=-1
    )
    true = torch.eye(8, dtype=torch.bool)
    loss = contrastive_loss(10 * texts @ images.T, true, ~true)
    expected = ClipLoss()(images, texts, torch.tensor(10.0))
    torch.testing.assert_close(loss, expected)


def test_unknown_pairs_and_captions_without_an_image_are_ignored() -> None:
    scores = torch.tensor([[3.0, 1.0, 9.0], [0.0, 0.0, 0.0]])
    true = torch.tensor([[True, False, False], [False, False, False]])
    false = torch.tensor([[False, True, False], [False, False, False]])
    # Caption 0 and image 0 have one false pair, with score 1 against 3.
    row = np.log1p(np.exp(1.0 - 3.0))
    assert contrastive_loss(scores, true, false).item() == pytest.approx(row / 2, abs=1e-6)


def test_the_claims_of_a_view_match_its_objects(pool) -> None:
    rng = np.random.default_rng(0)
    phase = Phase(side=96, batch=1, steps=1, whole=0.3, part=0.3, reach=4.0)
    for row in range(40):
        view = pool.view(row, phase, rng)
        assert view.image.shape == (96, 96, 3)
        assert not (view.present & view.absent).any()
        shown = {CLAIMS[place] for place in np.flatnonzero(view.present)}
        assert {("kind", mention.kind) for mention in view.mentions} == {
            claim for claim in shown if claim[0] == "kind"
        }
        assert ("context", view.context) in shown
        assert sum(claim[0] == "context" for claim in shown) == 1


def test_a_whole_view_mentions_every_large_object(pool) -> None:
    phase = Phase(side=224, batch=1, steps=1, whole=1.0, part=0.0, reach=1.5)
    for row in range(10):
        scene = generate_scene(4, row, tail=3.0)
        view = pool.view(row, phase, np.random.default_rng(0))
        assert np.array_equal(view.image, scene.image)
        # An object counts as visible from ten pixels of the view.
        large = {thing.kind for thing in scene.objects if thing.extent * 224 >= 10}
        assert large == {mention.kind for mention in view.mentions}


def test_a_caption_is_true_of_every_view_that_shows_its_claims(pool) -> None:
    rng = np.random.default_rng(0)
    phase = Phase(side=64, batch=1, steps=1, whole=1.0, part=0.0, reach=1.5)
    views = [pool.view(row, phase, rng) for row in range(40)]
    captions = [
        Caption("a car", (("kind", "car"),)),
        Caption("a car at night", (("kind", "car"), ("context", "night"))),
    ]
    true, false = truth_table(captions, views)
    for column, view in enumerate(views):
        car = ("kind", "car") in {CLAIMS[place] for place in np.flatnonzero(view.present)}
        night = view.context == "night"
        assert true[0, column] == car
        assert true[1, column] == (car and night)
        assert not (car and night and false[1, column])
        assert night or false[1, column]
    assert not (true & false).any()


@pytest.fixture
def small(tmp_path):
    """Makes a small model and its tokenizer, equal each time."""
    size = write_vocabulary(["a photo of a car"], tmp_path / "vocabulary.txt.gz")
    config = tmp_path / "config.json"
    config.write_text(
        f"""{{"embed_dim": 32,
        "vision_cfg": {{"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 32}},
        "text_cfg": {{"context_length": 24, "vocab_size": {size}, "width": 32, "heads": 2,
        "layers": 1}}}}"""
    )

    def make():
        torch.manual_seed(0)
        return make_model(config, tmp_path / "vocabulary.txt.gz")

    return make


def test_a_short_run_learns_and_is_reproducible(pool, small) -> None:
    cycle = Cycle((Phase(64, 16, 12, 0.0, 0.1, 2.0),), peak=2e-3, horizon=12)

    def run() -> tuple[dict[str, torch.Tensor], list[float]]:
        model, tokenizer = small()
        losses: list[float] = []
        average = train(
            *(model, tokenizer, pool, cycle),
            claim_vectors=random_claim_vectors(model),
            seed=3,
            on_step=lambda _, loss: losses.append(loss),
        )
        return average.state_dict(), losses

    weights, losses = zip(run(), run(), strict=True)
    assert losses[0] == losses[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert np.mean(losses[0][-3:]) < np.mean(losses[0][:3])


def test_every_part_of_the_model_is_trained(pool, small) -> None:
    model, tokenizer = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cycle = Cycle((Phase(64, 8, 2, 0.0, 0.1, 2.0),), peak=1e-3, horizon=2)
    train(model, tokenizer, pool, cycle, claim_vectors=random_claim_vectors(model), seed=3)
    same = {
        name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])
    }
    # The bias of the keys adds the same to all attention logits, so it gets no gradient.
    assert same <= {"visual.attnpool.k_proj.bias"}


def test_the_half_tower_is_close_to_the_float32_tower(small) -> None:
    model, _ = small()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model.train()
    half = HalfTower(model.visual)(images)
    torch.testing.assert_close(half, model.visual(images), atol=0.05, rtol=0.05)
