"""``hardmine regions``: draws an image with its regions and their similarity to a text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardmine.cli.progress import console
from hardmine.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hardmine.records import Regions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("image", type=Path, help="the image file")
    parser.add_argument("--clusters", default="kmeans:10", help="default: %(default)s")
    parser.add_argument("--encoder", default="tiny", help="default: %(default)s")
    parser.add_argument(
        "--image-size", type=int, help="side in pixels to which the image is resized"
    )
    parser.add_argument("--dense", default="value", help="how patch vectors are computed (value)")
    parser.add_argument(
        "--query", metavar="TEXT", help="also show each region's similarity to TEXT"
    )
    parser.add_argument(
        "--box",
        action="append",
        default=[],
        metavar="X1,Y1,X2,Y2",
        help="a box in pixels, for --clusters boxes; repeat for more boxes",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the clustering (0)")
    parser.add_argument("--device", help="for example cpu or cuda:0")
    parser.add_argument(
        "--out", type=Path, metavar="PAGE", help="image file to write, for example page.png"
    )
    parser.add_argument("--json", action="store_true", help="print the regions as JSON")


def run(args: argparse.Namespace) -> int:
    """Encode the image, cluster its patches, draw the regions."""
    if args.out is None and not args.json:
        raise InputError("nothing to do: pass --out page.png, --json or both")
    from hardmine.clusters import cluster, parse_spec
    from hardmine.datasets import open_image
    from hardmine.encoders import load_encoder
    from hardmine.report.regions import draw_regions

    spec = parse_spec(args.clusters)
    image = open_image(args.image)
    encoder = load_encoder(
        args.encoder, image_size=args.image_size, dense=args.dense, device=args.device
    )
    features = encoder.encode_images(encoder.preprocess(image)[None])
    regions = cluster(
        features.patches,
        spec,
        whole=features.whole,
        seed=args.seed,
        labels=True,
        boxes=[_boxes(args.box, image.size)] if spec.method == "boxes" else None,
        names=[str(args.image)],
    )
    scores: npt.NDArray[np.float32] | None = None
    if args.query is not None:
        text = encoder.encode_texts([args.query]).to(regions.vectors)
        scores = (regions.vectors @ text[0]).cpu().numpy()
    if args.json:
        print(json.dumps(_to_json(regions, scores), indent=1))
    if args.out is not None:
        _, height, width, _ = features.patches.shape
        page = draw_regions(
            image,
            regions,
            title=args.image.name,
            subtitle=f"{spec} · {args.encoder} · {height} by {width} patches · "
            f"{len(regions)} region{'s' * (len(regions) != 1)}",
            scores=scores,
            query=args.query or "",
        )
        try:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            page.save(args.out)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot write {args.out}: {error}") from None
        console.print(
            f"{args.out}: {len(regions)} regions", highlight=False, markup=False, soft_wrap=True
        )
    return 0


def _boxes(texts: list[str], size: tuple[int, int]) -> Any:
    import torch

    if not texts:
        raise InputError('--clusters boxes needs boxes: --box="X1,Y1,X2,Y2" in pixels')
    try:
        corners = torch.tensor([[float(edge) for edge in text.split(",")] for text in texts])
        return corners.reshape(len(texts), 4) / torch.tensor([*size, *size])
    except (ValueError, RuntimeError):
        raise InputError(f"--box must be four numbers, X1,Y1,X2,Y2; got {texts}") from None


def _to_json(regions: Regions, scores: npt.NDArray[np.float32] | None) -> list[dict[str, Any]]:
    """One entry for each region, numbered as in the image."""
    entries = []
    for row in range(len(regions)):
        entry: dict[str, Any] = {
            "region": row + 1,
            "box": [round(edge, 4) for edge in regions.boxes[row].tolist()],
            "mass": round(float(regions.mass[row]), 4),
        }
        if scores is not None:
            entry["score"] = round(float(scores[row]), 4)
        entries.append(entry)
    return entries
