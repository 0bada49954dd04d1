"""Stopped in the middle of an epoch, training goes on with the very next image.

python examples/3_resume.py
"""

import itertools

import torch
from detection import arguments, detect, detector, judge, loader, scenes, train

import hardmine


def start(args, images):
    """Everything that a run holds, as it begins."""
    encoder = hardmine.load_encoder("tiny")
    index = hardmine.build_index(images, encoder, args.out / "scenes.hmx")
    sampler = hardmine.HardMiningSampler(len(images), seed=0)
    miner = hardmine.HardMiner(index, sampler, encoder=encoder, images=images, policy="below:0.5")
    model = detector(len(images.class_names))
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), sampler, miner


def main():
    args = arguments(__doc__)
    images, val_images = scenes(args.out / "scenes", args.images)
    checkpoint, batch_size, steps = args.out / "checkpoint.pt", 2, 2

    # An epoch, a round, and a few steps of the next epoch; then the machine goes down.
    model, optimizer, sampler, miner = start(args, images)
    train(model, itertools.islice(loader(images, sampler, batch_size), steps), optimizer)
    sampler.set_epoch(1)
    miner.step(judge(val_images, detect(model, val_images)))
    train(model, itertools.islice(loader(images, sampler, batch_size), steps), optimizer)
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "miner": miner.state_dict(),
            # A loader may draw ahead: say how many images training really took.
            "sampler": sampler.state_dict(used=steps * batch_size),
        },
        checkpoint,
    )
    unbroken = hardmine.HardMiningSampler(len(images), seed=0)
    unbroken.set_weights(sampler.weights)
    unbroken.set_epoch(1)
    expected = list(unbroken)[steps * batch_size :]

    # Another process, later. The miner first, then the sampler: its state is the finer one.
    model, optimizer, sampler, miner = start(args, images)
    saved = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    miner.load_state_dict(saved["miner"])
    sampler.load_state_dict(saved["sampler"])
    sampler.set_epoch(1)
    rest = list(sampler)
    print(f"{len(rest)} images left in the epoch; as if never stopped: {rest == expected}")
    done = miner.step(judge(val_images, detect(model, val_images)))
    print(f"round {done.number}: {len(done.weak)} weak classes")


if __name__ == "__main__":
    main()
