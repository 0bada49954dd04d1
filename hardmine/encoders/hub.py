"""Files of the model hub: from its cache, else from the network, else one clear error, soon."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub

from hardmine.errors import WeightsUnavailable

_PATIENCE = 5.0  # seconds to wait for the hub to answer at all


def fetch(repository: str, files: Sequence[str], name: str, by_hand: str = "") -> Path:
    """Find the first of several files that a repository has, without waiting for a dead network.

    Args:
        repository: "ORG/MODEL".
        files: Alternatives, best first.
        name: What the user asked for, for the message.
        by_hand: How to load a file that was copied here by hand.

    Raises:
        WeightsUnavailable: If none is in the cache and none can be fetched.
    """
    for file in files:
        cached = huggingface_hub.try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    # QueryRecord once and briefly, because the hub's own client retries for half a minute a file.
    reason = unreachable()
    if not reason:
        try:
            there = set(huggingface_hub.list_repo_files(repository))
            for file in files:
                if file in there:
                    return Path(huggingface_hub.hf_hub_download(repository, file))
            reason = f"{repository} has no {' or '.join(files)}"
        except Exception as error:  # whatever went wrong on the way, the advice is the same
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    url = huggingface_hub.hf_hub_url(repository, files[0])
    raise WeightsUnavailable(
        f"encoder {name!r}: its file {files[0]} is not on this machine and cannot be fetched "
        f"({reason}). Where there is a network, run\n"
        f"    hf download {repository} {files[0]}\n"
        f"and copy the folder it made to {cache / ('models--' + repository.replace('/', '--'))}"
        + (f"; or download {url} and {by_hand}" if by_hand else "")
        + ". Without any download, 'tiny' works offline."
    )


def fetch_folder(repository: str, weights: Sequence[str], config: str, name: str) -> Path:
    """Find the folder of the cache that holds a model's weights, configuration and tokenizer.

    Args:
        repository: "ORG/MODEL".
        weights: Alternative files, best first.
        config: The configuration's file; where it is, the tokenizer's files are taken to be too.
        name: What the user asked for, for the message.

    Raises:
        WeightsUnavailable: If it is not in the cache and cannot be fetched.
    """
    folder = fetch(repository, weights, name).parent
    if not (folder / config).is_file():
        fetch(repository, [config], name)
        huggingface_hub.snapshot_download(
            repository, revision=folder.name, allow_patterns=["*.json", "*.txt", "*.model"]
        )
    return folder


def unreachable() -> str:
    """Why the hub cannot be reached; empty when it can."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    endpoint = huggingface_hub.constants.ENDPOINT
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        # Through the proxies of the environment, as the hub's own client goes.
        with urllib.request.urlopen(request, timeout=_PATIENCE):
            return ""
    except urllib.error.HTTPError:
        return ""  # it answered
    except OSError as error:
        return f"{endpoint} does not answer: {getattr(error, 'reason', error)}"
