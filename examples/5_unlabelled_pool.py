"""Half of the images have no labels: which should be labelled next, or get pseudo-labels?

python examples/5_unlabelled_pool.py
"""

import numpy as np
from detection import load_scenes, parse_arguments

import hardmine
from hardmine.mining.targets import HIT


def main():
    args = parse_arguments(__doc__)
    images, _ = load_scenes(args.out / "scenes", args.images)
    labelled = images.subset(np.arange(0, len(images), 2))

    # The index holds all images. Labels are matched to it by image id.
    encoder = hardmine.load_encoder("tiny")
    index = hardmine.build_index(images, encoder, args.out / "scenes.hmx")
    sampler = hardmine.HardMiningSampler(len(images), seed=0)
    miner = hardmine.HardMiner(
        index,
        sampler,
        encoder=encoder,
        images=labelled,
        dataset_ids=images.ids,  # the sampler's rows: labelled images and the pool
        targets=hardmine.TargetRules(pool_share=0.1),  # up to a tenth of the pool for each query
    )

    # Let the two most frequent classes be weak. The labelled half shows how good their queries are.
    counts = np.diff(labelled.class_counts.tocsc().indptr)
    weak = [labelled.class_names[row] for row in np.argsort(-counts)[:2]]
    done = miner.step({name: 0.1 if name in weak else 0.6 for name in images.class_names})
    targets = done.result.targets
    hits = targets.take(targets.kinds == HIT)
    for row, query in enumerate(done.queries):
        own = hits.take(hits.query_rows == row)
        best = own.image_rows[np.argsort(-own.scores)][:5]
        print(f"{query.phrases[0]}: precision {query.precision:.2f}; label next:")
        for image in best:
            draws = done.weights[image] / done.weights.mean()
            print(f"  {images.paths[image]}, drawn {draws:.2f} times an epoch")

    shown = images.class_counts.toarray() > 0
    right = [
        shown[image, images.class_names.index(done.queries[row].class_name)]
        for row, image in zip(hits.query_rows, hits.image_rows, strict=True)
    ]
    print(f"{len(hits)} hits in the pool, {np.mean(right or [0]):.0%} of them right")


if __name__ == "__main__":
    main()
