"""Bring your own encoder: three methods and two attributes. This one knows only colours.

python examples/4_own_encoder.py
"""

import re

import torch
import torch.nn.functional as F
from detection import load_scenes, parse_arguments
from torchvision.transforms.functional import pil_to_tensor

import hardmine
from hardmine.encoders.base import DenseFeatures

COLOURS = {
    "red": (0.85, 0.1, 0.1),
    "green": (0.1, 0.6, 0.15),
    "blue": (0.15, 0.3, 0.85),
    "yellow": (0.95, 0.85, 0.15),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "dark": (0.1, 0.1, 0.15),
}


class ColourEncoder:
    """Embeds images and texts as directions from middle grey: unit vectors, float32."""

    dim = 4
    fingerprint = "colours-1"  # must change whenever any vector could change

    def preprocess(self, image):
        """Turn an image into a tensor; batches are stacks of these."""
        return pil_to_tensor(image.resize((128, 128))).float() / 255

    def encode_images(self, batch):
        """Embed (B, 3, 128, 128): 8 × 8 patch vectors and one whole-image vector for each image."""
        patches = self._directions(F.avg_pool2d(batch, 16).permute(0, 2, 3, 1))
        whole = self._directions(batch.mean(dim=(2, 3)))
        return DenseFeatures(patches=patches, whole=whole)

    def encode_texts(self, texts):
        """Embed texts; prompt templates are already applied."""
        rows = []
        for text in texts:
            colours = [
                COLOURS[word] for word in re.findall("[a-z]+", text.lower()) if word in COLOURS
            ]
            rows.append(torch.tensor(colours or [(0.5, 0.5, 0.5)]).mean(dim=0))
        return self._directions(torch.stack(rows))

    def _directions(self, colours):
        return F.normalize(F.pad(colours - 0.5, (0, 1), value=0.05), dim=-1)


def main():
    args = parse_arguments(__doc__)
    images, _ = load_scenes(args.out / "scenes", args.images)
    encoder = ColourEncoder()
    index = hardmine.build_index(images, encoder, args.out / "colours.hmx", clusters="kmeans:6")

    hits = index.search(encoder.encode_texts(["red", "blue"]), k=3)
    for colour, rows, scores in zip(("red", "blue"), hits.image_rows, hits.scores, strict=True):
        found = [
            f"{index.paths[row]} ({score:.2f})" for row, score in zip(rows, scores, strict=True)
        ]
        print(f"{colour}: {', '.join(found)}")

    # This encoder ignores class names but knows the context: it finds the class's dark images.
    miner = hardmine.HardMiner(index, encoder=encoder, images=images, contexts=["dark {}"])
    done = miner.step(
        {name: 0.1 if row == 0 else 0.5 for row, name in enumerate(images.class_names)}
    )
    for query in done.queries:
        hard = query.counts["hard"]
        print(f"{query.phrases[0]!r}: precision {query.precision:.2f}, {hard} hard positives")


if __name__ == "__main__":
    main()
