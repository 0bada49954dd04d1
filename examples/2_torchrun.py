"""The same loop in several processes: rank 0 mines, and each rank draws its share of the images.

torchrun --nproc-per-node 2 examples/2_torchrun.py
"""

import logging

import torch
import torch.distributed as dist
from detection import (
    detect,
    evaluate,
    load_scenes,
    make_detector,
    make_loader,
    parse_arguments,
    train,
)
from torch.nn.parallel import DistributedDataParallel

import hardmine


def main():
    args = parse_arguments(__doc__)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, format="%(message)s")
    if rank == 0:
        load_scenes(args.out / "scenes", args.images)
    dist.barrier()
    images, val_images = load_scenes(args.out / "scenes", args.images)

    # Every rank embeds its share of the images.
    encoder = hardmine.load_encoder("tiny")
    index = hardmine.build_index(images, encoder, args.out / "scenes.hmx")

    # The sampler takes rank and world size from torch.distributed.
    epoch_length = 8 if args.quick else None
    sampler = hardmine.HardMiningSampler(len(images), epoch_length=epoch_length, seed=0)
    miner = hardmine.HardMiner(
        index if rank == 0 else None,  # other ranks need neither index nor encoder
        sampler,
        encoder=encoder if rank == 0 else None,
        images=images,
        need=hardmine.NeedRules(policy="below:0.5"),
        rounds=args.out / "rounds.jsonl",
    )

    model = DistributedDataParallel(make_detector(len(images.class_names)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        train(model, make_loader(images, sampler), optimizer)
        metrics = evaluate(val_images, detect(model.module, val_images)) if rank == 0 else None
        # On every rank; all get the same weights.
        done = miner.step(metrics, epochs_done=epoch + 1, epochs=args.epochs)

    digests = [None] * dist.get_world_size()
    dist.all_gather_object(digests, done.digest)
    if rank == 0:
        print(f"{len(digests)} ranks, {len(set(digests))} set of weights")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
