"""Fetches files of the model hub from its cache or the network; fails within seconds if neither."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub

from hardmine.errors import WeightsUnavailable

_TIMEOUT = 5.0  # seconds to wait for the hub's first answer


def fetch(repository: str, files: Sequence[str], name: str, manual: str = "") -> Path:
    """Find or download the first of several files that a repository has.

    Args:
        repository: "ORG/MODEL".
        files: Alternative files, best first.
        name: The encoder's name, for error messages.
        manual: Advice on how to load a manually copied file, for the error message.

    Raises:
        WeightsUnavailable: If none is in the cache and none can be downloaded.
    """
    for file in files:
        cached = huggingface_hub.try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    # Test the connection first: the hub's own client retries for half a minute for each file.
    reason = unreachable()
    if not reason:
        try:
            available = set(huggingface_hub.list_repo_files(repository))
            for file in files:
                if file in available:
                    return Path(huggingface_hub.hf_hub_download(repository, file))
            reason = f"{repository} has no {' or '.join(files)}"
        except Exception as error:  # the advice is the same for all errors
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    url = huggingface_hub.hf_hub_url(repository, files[0])
    raise WeightsUnavailable(
        f"encoder {name!r}: its file {files[0]} is not on this machine and cannot be downloaded "
        f"({reason}). On a machine with network access run\n"
        f"    hf download {repository} {files[0]}\n"
        f"and copy the folder it makes to {cache / ('models--' + repository.replace('/', '--'))}"
        + (f"; or download {url} and {manual}" if manual else "")
        + ". The encoder 'tiny' needs no download."
    )


def fetch_folder(repository: str, weights: Sequence[str], config: str, name: str) -> Path:
    """Find or download a model's weights, configuration and tokenizer; returns their folder.

    Args:
        repository: "ORG/MODEL".
        weights: Alternative weight files, best first.
        config: The configuration file. If it is cached, the tokenizer's files are assumed to be.
        name: The encoder's name, for error messages.

    Raises:
        WeightsUnavailable: If it is not in the cache and cannot be downloaded.
    """
    folder = fetch(repository, weights, name).parent
    if not (folder / config).is_file():
        fetch(repository, [config], name)
        huggingface_hub.snapshot_download(
            repository, revision=folder.name, allow_patterns=["*.json", "*.txt", "*.model"]
        )
    return folder


def unreachable() -> str:
    """The reason why the hub cannot be reached; empty if it can."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    endpoint = huggingface_hub.constants.ENDPOINT
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        # Uses the proxies of the environment, as the hub's own client does.
        with urllib.request.urlopen(request, timeout=_TIMEOUT):
            return ""
    except urllib.error.HTTPError:
        return ""  # it answered
    except OSError as error:
        return f"{endpoint} does not answer: {getattr(error, 'reason', error)}"
