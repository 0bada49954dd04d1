"""Encoders: images and texts to unit vectors of one space. Importing this loads no torch."""

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
    """Make an encoder by name; its ``spec`` holds the arguments that make it again.

    Args:
        name: What to load:

            - ``"tiny"``: the small CLIP that comes with hardmine, for generated scenes; offline.
            - ``"RN50x64/openai"``, ``"ViT-B-16/laion2b_s34b_b88k"``: a model and its weights as
              open_clip names them, fetched once into its cache.
            - ``"ViT-B-16/weights/mine.safetensors"``: the same with a checkpoint file
              (.safetensors, or .pt, .pth, .bin with nothing but tensors in it).
            - ``"hf-hub:ORG/MODEL"``, ``"local-dir:FOLDER"``: open_clip's other two ways.
            - ``"owlvit/google/owlvit-base-patch32"``, ``"owlvit/google/owlv2-base-patch16"``, or
              ``"owlvit/FOLDER"``: one vector a predicted box.
            - ``"precomputed:FILE"``: vectors made elsewhere, see ``hardmine.encoders.precomputed``.
            - an encoder object of your own, which comes back as it is.
        image_size: Pixels of the square (or height and width) that images are resized to; None
            is the model's own.
        dense: What the last attention does to patches; "value", or see
            ``hardmine.encoders.dense``.
        device: Where to compute; None is the GPU if there is one.
        precision: "fp32", "bf16" or "fp16"; None is the fastest that is safe on the device.
        whole: Whole-image vector from the "same" pass, or one at the "native" size.
        compile: Compile the image tower with torch.compile.

    Raises:
        InputError: If the name is unknown; the message names the nearest known one.
        WeightsUnavailable: If the weights are not here and cannot be fetched.
    """
    if not isinstance(name, str):
        if not isinstance(name, Encoder):
            raise InputError(
                "an encoder must have dim, fingerprint, preprocess, encode_images and "
                f"encode_texts, which {type(name).__name__} lacks; or give a name, e.g. 'tiny'"
            )
        return name
    options: dict[str, Any] = {
        "image_size": image_size,
        "dense": dense,
        "device": device,
        "precision": precision,
    }
    kind, _, source = name.partition("/")
    if kind == "owlvit" and source:
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

        # The same tensors, and a warning where the images are none that it knows.
        encoder.preprocess = SceneImage(**vars(encoder.preprocess))
    return encoder
