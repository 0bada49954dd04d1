"""Files of the model hub: from its cache, else from the network, else one clear error, soon."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

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
    # Asked once and briefly, because the hub's own client retries for half a minute a file.
    reason = unreachable()
    for file in files if not reason else ():
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file))
        except LocalEntryNotFoundError as error:
            reason = _first_line(error)
            break
        except EntryNotFoundError:
            reason = f"{repository} has no {' or '.join(files)}"
        except Exception as error:  # whatever went wrong on the way, the advice is the same
            reason = _first_line(error)
            break
    url = huggingface_hub.hf_hub_url(repository, files[0])
    raise WeightsUnavailable(
        f"encoder {name!r}: its file {files[0]} is not on this machine and cannot be fetched "
        f"({reason}). Where there is a network, run\n"
        f"    hf download {repository} {files[0]}\n"
        f"and copy {_cache_folder(repository)} to the same place here"
        + (f"; or download {url} and {by_hand}" if by_hand else "")
        + ". Without any download, 'tiny' works offline."
    )


def unreachable() -> str:
    """Why the hub cannot be reached; empty when it can."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    endpoint = huggingface_hub.constants.ENDPOINT
    try:
        # Through the proxies of the environment, as the hub's client goes.
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_PATIENCE)
    except urllib.error.HTTPError:
        return ""  # it answered
    except OSError as error:
        return f"{endpoint} does not answer: {getattr(error, 'reason', error)}"
    return ""


def _cache_folder(repository: str) -> Path:
    folder = huggingface_hub.constants.REPO_ID_SEPARATOR.join(["models", *repository.split("/")])
    return Path(huggingface_hub.constants.HF_HUB_CACHE) / folder


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
