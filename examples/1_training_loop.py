"""A plain PyTorch training loop that mines hard examples between epochs.

python examples/1_training_loop.py
hardmine rounds work/example/rounds.jsonl --html rounds.html
"""

import logging

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


def main():
    args = parse_arguments(__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images, val_images = load_scenes(args.out / "scenes", args.images)

    # Once: embed the images, cluster each into a few regions, and write them to disk.
    encoder = hardmine.load_encoder("tiny")
    index = hardmine.build_index(images, encoder, args.out / "scenes.hmx")
    val_index = hardmine.build_index(val_images, encoder, args.out / "val.hmx")

    # Replaces DataLoader(shuffle=True). Until the first round it shuffles in the same way.
    epoch_length = 4 if args.quick else None
    sampler = hardmine.HardMiningSampler(len(images), epoch_length=epoch_length, seed=0)
    miner = hardmine.HardMiner(
        index,
        sampler,
        encoder=encoder,
        images=images,
        contexts=["at night"],  # no label says it, so it is measured on the validation images
        validation=hardmine.ValidationSet(val_images, val_index),
        need=hardmine.NeedRules(policy="below:0.5"),
        rounds=args.out / "rounds.jsonl",
    )

    model = make_detector(len(images.class_names))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        train(model, make_loader(images, sampler), optimizer)
        results = detect(model, val_images)
        done = miner.step(
            evaluate(val_images, results),
            val_detections=results,
            epochs_done=epoch + 1,
            epochs=args.epochs,
        )
        if done.weak:
            print("weakest:", ", ".join(done.weak[:5]), "| targets:", done.counts())

    print(miner.explain(images.ids[done.weights.argmax()]))


if __name__ == "__main__":
    main()
