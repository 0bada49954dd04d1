"""Encoders embed images and texts as unit vectors of one space. Importing this loads no torch."""

from __future__ import annotations

import importlib.util
from typing import Any

from hardmine.encoders.base import Encoder
from hardmine.errors import InputError, MissingExtra

__all__ = ["Encoder", "load_encoder"]


def load_encoder(
    name: str | Encoder,
    *,
    image_size: int | tuple[int, int] | None = None,
    dense: str = "value",
    device: Any = None,
    precision: str | None = None,
    whole: str = "same",
    compile: bool = False,
) -> Encoder:
    """Load an encoder by name; its ``spec`` holds the arguments that load it again.

    Args:
        name: What to load:

            - ``"tiny"``: the small CLIP shipped with hardmine, for generated scenes; offline.
            - ``"RN50x64/openai"``, ``"ViT-B-16/laion2b_s34b_b88k"``: an open_clip model and its
              weights, downloaded once into the hub's cache.
            - ``"ViT-B-16/weights/mine.safetensors"``: an open_clip model and a checkpoint file
              (.safetensors, or .pt, .pth, .bin that contain only tensors).
            - ``"hf-hub:ORG/MODEL"``, ``"local-dir:FOLDER"``: as in open_clip.
            - ``"owlvit/google/owlvit-base-patch32"``, ``"owlvit/google/owlv2-base-patch16"``, or
              ``"owlvit/FOLDER"``: one vector for each predicted box.
            - ``"precomputed:FILE"``: your own vectors, see ``hardmine.encoders.precomputed``.
            - an encoder object of your own, which is returned unchanged.
        image_size: Side of the square, or (height, width), in pixels to which images are resized;
            None is the model's own size.
        dense: How patch vectors are computed: "value", or see ``hardmine.encoders.dense``.
        device: Device to compute on; None is the GPU if there is one.
        precision: "fp32", "bf16" or "fp16"; None is the fastest that is safe on the device.
        whole: "same" takes the whole-image vector from the same pass as the patches, "native" from
            a second pass at the model's own size.
        compile: Compile the image tower with torch.compile.

    Raises:
        InputError: If the name is unknown; the message lists the nearest known names.
        WeightsUnavailable: If the weights are not on this machine and cannot be downloaded.
    """
    if not isinstance(name, str):
        if not isinstance(name, Encoder):
            raise InputError(
                "an encoder must have dim, fingerprint, preprocess, encode_images and "
                f"encode_texts, but {type(name).__name__} lacks some; or pass a name, e.g. 'tiny'"
            )
        return name
    options: dict[str, Any] = {
        "image_size": image_size,
        "dense": dense,
        "device": device,
        "precision": precision,
    }
    family, _, source = name.partition("/")
    if family == "owlvit" and source:
        if importlib.util.find_spec("transformers") is None:
            raise MissingExtra("owlvit", f"the encoder {name!r}")
        from hardmine.encoders.owlvit import load_owlvit

        return load_owlvit(source, **options)
    if name.startswith("precomputed:"):
        from hardmine.encoders.precomputed import load_precomputed

        return load_precomputed(name.removeprefix("precomputed:"))
    from hardmine.encoders.open_clip import OpenClipEncoder

    if name == "tiny":
        from hardmine.encoders.tiny import load_model

        model, tokenizer = load_model()
    else:
        from hardmine.encoders.pretrained import load_pretrained

        model, tokenizer, name = load_pretrained(name)
    encoder = OpenClipEncoder(
        model, tokenizer, name=name, copy=False, whole=whole, compile=compile, **options
    )
    if name == "tiny":
        from hardmine.encoders.tiny.scene_image import SceneImage

        # The same tensors, with a warning for images that are not generated scenes.
        encoder.preprocess = SceneImage(**vars(encoder.preprocess))
    return encoder
