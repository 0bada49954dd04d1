"""Dense modes: how a vision transformer's last block computes patch vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hardmine.errors import InputError

ATTENTIONS = ("qq", "kk", "vv", "qk")

# As defined in their papers. MaskCLIP on a ResNet is "value+no-positions".
PUBLISHED = {
    "maskclip": "value",
    "clearclip": "qq",
    "sclip": "qq+kk+residual+mlp",
    "naclip": "kk+window=5",
}


@dataclass(frozen=True)
class DenseMode:
    """How the last block treats patches; ``parse_dense`` reads what ``str()`` returns.

    >>> str(parse_dense("sclip"))
    'qq+kk+residual+mlp'

    Attributes:
        attention: Projections whose products are the attention logits. "qq" lets a patch attend to
            patches with a similar query, "kk" and "vv" to those with a similar key or value; "qk"
            is ordinary attention. Several are summed. Empty is "value": every patch attends only
            to itself.
        residual: Keep the skip connection around the attention.
        mlp: Keep the block's feed-forward half, with its skip connection.
        positions: On a ResNet, add the pool's positional embeddings to the features before they
            are projected, as the pool itself does. MaskCLIP does not ("no-positions").
        window: Standard deviation, in patches, of a Gaussian that is added to the attention
            logits, so that near patches count more; 0 is none.
    """

    attention: tuple[str, ...] = ()
    residual: bool = False
    mlp: bool = False
    positions: bool = True
    window: float = 0.0

    def __str__(self) -> str:
        parts = list(self.attention) or ["value"]
        parts += [name for name in ("residual", "mlp") if getattr(self, name)]
        parts += [] if self.positions else ["no-positions"]
        parts += [f"window={self.window:g}"] if self.window else []
        return "+".join(parts)

    @property
    def plain(self) -> bool:
        """Whether this is "value" alone, the only mode that all towers support."""
        return self == DenseMode()

    @property
    def for_resnets(self) -> bool:
        """Whether ResNets support it."""
        return replace(self, positions=True).plain


def parse_dense(text: str) -> DenseMode:
    """Read a dense mode: attentions and options joined by "+", or the name of a paper's method.

    Args:
        text: E.g. "value", "qq", "kk+window=5", "qq+kk+residual+mlp", "naclip".

    Raises:
        InputError: If a part is unknown, or the parts contradict each other.
    """
    attention: list[str] = []
    residual = mlp = value = False
    positions = True
    window = 0.0
    for part in PUBLISHED.get(text, text).split("+"):
        if part in ATTENTIONS and part not in attention:
            attention.append(part)
        elif part == "value" and not value:
            value = True
        elif part == "residual":
            residual = True
        elif part == "mlp":
            mlp = True
        elif part == "no-positions":
            positions = False
        elif part.startswith("window="):
            window = _window(part, text)
        else:
            raise InputError(_unknown(part, text))
    if value == bool(attention):
        raise InputError(
            f"dense mode {text!r} must have either 'value' or some of {', '.join(ATTENTIONS)}"
        )
    if value and window:
        raise InputError(
            f"dense mode {text!r}: a window needs attention, and 'value' has none; try 'kk'"
        )
    if attention and not positions:
        raise InputError(
            f"dense mode {text!r}: 'no-positions' is for ResNets, which have 'value' alone"
        )
    return DenseMode(tuple(attention), residual, mlp, positions, window)


def _window(part: str, text: str) -> float:
    try:
        window = float(part.removeprefix("window="))
    except ValueError:
        window = 0.0
    if not 0.0 < window < float("inf"):
        raise InputError(f"dense mode {text!r}: window must be a number of patches above 0, e.g. 5")
    return window


def _unknown(part: str, text: str) -> str:
    known = ", ".join(("value", *ATTENTIONS, "residual", "mlp", "no-positions", "window=N"))
    return (
        f"dense mode {text!r}: {part!r} is unknown or given twice; join some of {known} with "
        f"'+', or use one of {', '.join(PUBLISHED)}"
    )
