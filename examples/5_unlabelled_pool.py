"""Half of the images have no labels: what should be labelled next, and drawn for pseudo-labels?

python examples/5_unlabelled_pool.py
"""

import numpy as np
from detection import arguments, scenes

import hardmine
from hardmine.mining.targets import HIT, TargetRules


def main():
    args = arguments(__doc__)
    images, _ = scenes(args.out / "scenes", args.images)
    labelled = images.subset(np.arange(0, len(images), 2))

    # The index holds all images; labels and index are matched by image id.
    encoder = hardmine.load_encoder("tiny")
    index = hardmine.build_index(images, encoder, args.out / "scenes.hmx")
    sampler = hardmine.HardMiningSampler(len(images), seed=0)
    miner = hardmine.HardMiner(
        index,
        sampler,
        encoder=encoder,
        images=labelled,
        dataset_ids=images.ids,  # the sampler's rows: labelled images and the pool
        rules=TargetRules(hits=0.1),  # a query may take a tenth of the pool
    )

    # Two classes are weak. The labelled half says how far their queries can be trusted.
    counts = np.diff(labelled.class_counts.tocsc().indptr)
    weak = [labelled.class_names[row] for row in np.argsort(-counts)[:2]]
    done = miner.step({name: 0.1 if name in weak else 0.6 for name in images.class_names})
    hits = done.targets.take(done.targets.kinds == HIT)
    for query, asked in enumerate(done.asked):
        mine = hits.take(hits.query_rows == query)
        best = mine.image_rows[np.argsort(-mine.scores)][:5]
        print(f"{asked.names[0]}: trust {asked.precision:.2f}; label next:")
        for row in best:
            print(f"  {images.paths[row]}  drawn {done.weights[row] / done.weights.mean():.2f} ×")

    truly = images.class_counts.toarray() > 0
    right = [
        truly[row, images.class_names.index(done.asked[query].class_name)]
        for query, row in zip(hits.query_rows, hits.image_rows, strict=True)
    ]
    print(f"{len(hits)} hits in the pool, {np.mean(right or [0]):.0%} of them right")


if __name__ == "__main__":
    main()
