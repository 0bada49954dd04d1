"""Training that stops in the middle of an epoch resumes with the very next image.

python examples/3_resume.py
"""

import itertools

import torch
from detection import (
    detect,
    evaluate,
    load_scenes,
    make_detector,
    make_loader,
    parse_arguments,
    train,
)

import hardmine


def start(args, images):
    """Model, optimizer, sampler and miner at the start of a run."""
    encoder = hardmine.load_encoder("tiny")
    index = hardmine.build_index(images, encoder, args.out / "scenes.hmx")
    sampler = hardmine.HardMiningSampler(len(images), seed=0)
    need = hardmine.NeedRules(policy="below:0.5")
    miner = hardmine.HardMiner(index, sampler, encoder=encoder, images=images, need=need)
    model = make_detector(len(images.class_names))
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), sampler, miner


def main():
    args = parse_arguments(__doc__)
    images, val_images = load_scenes(args.out / "scenes", args.images)
    checkpoint, batch_size, steps = args.out / "checkpoint.pt", 2, 2

    # Some training, a round, and a few steps of the next epoch; then the run is interrupted.
    model, optimizer, sampler, miner = start(args, images)
    train(model, itertools.islice(make_loader(images, sampler, batch_size), steps), optimizer)
    sampler.set_epoch(1)
    miner.step(evaluate(val_images, detect(model, val_images)))
    train(model, itertools.islice(make_loader(images, sampler, batch_size), steps), optimizer)
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "miner": miner.state_dict(),
            # A loader may draw ahead, so give the number of images that training used.
            "sampler": sampler.state_dict(used=steps * batch_size),
        },
        checkpoint,
    )
    uninterrupted = hardmine.HardMiningSampler(len(images), seed=0)
    uninterrupted.set_weights(sampler.weights)
    uninterrupted.set_epoch(1)
    expected = list(uninterrupted)[steps * batch_size :]

    # Later, in a new process. Load the miner before the sampler: both states hold the weights, and
    # the sampler's also holds the position in the epoch.
    model, optimizer, sampler, miner = start(args, images)
    saved = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    miner.load_state_dict(saved["miner"])
    sampler.load_state_dict(saved["sampler"])
    sampler.set_epoch(1)
    rest = list(sampler)
    print(f"{len(rest)} images left in the epoch; same as without interruption: {rest == expected}")
    done = miner.step(evaluate(val_images, detect(model, val_images)))
    print(f"round {done.number}: {len(done.weak)} weak classes")


if __name__ == "__main__":
    main()
