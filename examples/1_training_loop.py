"""A plain PyTorch detection loop that mines hard examples between epochs.

python examples/1_training_loop.py
hardmine rounds work/example/rounds.jsonl --html rounds.html
"""

import logging

import torch
from detection import arguments, detect, detector, judge, loader, scenes, train

import hardmine


def main():
    args = arguments(__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images, val_images = scenes(args.out / "scenes", args.images)

    # Once: embed the images, cluster each into a few regions, keep them on disk.
    encoder = hardmine.load_encoder("tiny")
    index = hardmine.build_index(images, encoder, args.out / "scenes.hmx")
    val_index = hardmine.build_index(val_images, encoder, args.out / "val.hmx")

    # In place of DataLoader(shuffle=True). Until the first round it is the same shuffle.
    epoch_length = 4 if args.quick else None
    sampler = hardmine.HardMiningSampler(len(images), epoch_length=epoch_length, seed=0)
    miner = hardmine.HardMiner(
        index,
        sampler,
        encoder=encoder,
        images=images,
        policy="below:0.5",
        contexts=["at night"],  # measured on the validation images, as no label says it
        val_images=val_images,
        val_index=val_index,
        rounds=args.out / "rounds.jsonl",
    )

    model = detector(len(images.class_names))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        train(model, loader(images, sampler), optimizer)
        results = detect(model, val_images)
        done = miner.step(judge(val_images, results), val_detections=results)  # logs one line
        if done.weak:
            print("weakest:", ", ".join(done.weak[:5]), "| drawn:", done.counts())

    most_wanted = images.ids[done.weights.argmax()]
    print(miner.explain(most_wanted))


if __name__ == "__main__":
    main()
