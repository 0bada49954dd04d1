"""Fetches files of the model hub from its cache or the network; fails within seconds if neither."""

from __future__ import annotations

import hashlib
import logging
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import RepositoryNotFoundError

from hardmine.errors import WeightsUnavailable

_log = logging.getLogger(__name__)
_TIMEOUT = 5.0  # seconds to wait for the hub's first answer


def fetch(
    repository: str, files: Sequence[str], name: str, manual: str = "", *, whole: bool = False
) -> Path:
    """Find or download the first of several files that a repository has.

    Args:
        repository: "ORG/MODEL".
        files: Alternative files, best first.
        name: The encoder's name, for error messages.
        manual: Advice on how to load a manually copied file, for the error message.
        whole: Whether the model needs other files of the repository too, for the error message.

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
            return _download(repository, files)
        except Exception as error:  # the advice is the same for all errors
            reason = _first_line(error)
    raise _unavailable(repository, files[0], name, reason, manual, whole=whole)


def _unavailable(
    repository: str, file: str, name: str, reason: str, manual: str = "", *, whole: bool = False
) -> WeightsUnavailable:
    """The error that says why a file is not here and how to bring it here."""
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    url = huggingface_hub.hf_hub_url(repository, file)
    return WeightsUnavailable(
        f"encoder {name!r}: its file {file} is not on this machine and cannot be downloaded "
        f"({reason}). On a machine with network access run\n"
        f"    hf download {repository}{'' if whole else f' {file}'}\n"
        f"and copy the folder it makes to {cache / ('models--' + repository.replace('/', '--'))}"
        + (f"; or download {url} and {manual}" if manual else "")
        + ". The encoder 'tiny' needs no download."
    )


def _download(repository: str, files: Sequence[str]) -> Path:
    """Download the first of several files that a repository has; says size and licence before."""
    hub = huggingface_hub.HfApi()
    model = hub.model_info(repository, files_metadata=True)
    sizes = {entry.rfilename: entry.size or 0 for entry in model.siblings or ()}
    file = next((file for file in files if file in sizes), None)
    if file is None:
        raise FileNotFoundError(f"{repository} has no {' or '.join(files)}")
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < sizes[file]:
        raise OSError(
            f"{file} has {sizes[file] / 1e6:,.0f} MB and {cache} has {free / 1e6:,.0f} MB free; "
            "set HF_HUB_CACHE to a folder with more"
        )
    licences = [tag.removeprefix("license:") for tag in model.tags or () if "license:" in tag]
    # A warning, since logging shows no less unless a program asks for it.
    _log.warning(
        "downloading %s of %s: %s MB, licence %s, into %s",
        *(file, repository, f"{sizes[file] / 1e6:,.1f}", licences[0] if licences else "not stated"),
        cache,
    )
    path = Path(hub.hf_hub_download(repository, file))
    blob = path.resolve()
    # The client checks the size alone. Large files are kept by the name of their SHA-256.
    if len(blob.name) == 64 and _sha256(blob) != blob.name:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise OSError(f"{file} arrived damaged: its SHA-256 is not the hub's; try again")
    return path


def _first_line(error: Exception) -> str:
    if isinstance(error, RepositoryNotFoundError):  # the hub's answer to a wrong name, too
        return "the hub has no such model, or it needs a login: hf auth login"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fetch_folder(repository: str, weights: Sequence[str], config: str, name: str) -> Path:
    """Find or download a model's weights, configuration and tokenizer; returns their folder.

    Args:
        repository: "ORG/MODEL".
        weights: Alternative weight files, best first.
        config: The configuration file. It is downloaded last: where it is, the rest is.
        name: The encoder's name, for error messages.

    Raises:
        WeightsUnavailable: If it is not in the cache and cannot be downloaded.
    """
    folder = fetch(repository, weights, name, whole=True).parent
    if not (folder / config).is_file():
        reason = unreachable()
        if not reason:
            try:
                huggingface_hub.snapshot_download(
                    repository,
                    revision=folder.name,
                    allow_patterns=["*.json", "*.txt", "*.model"],
                    ignore_patterns=[config],
                )
                huggingface_hub.hf_hub_download(repository, config, revision=folder.name)
            except Exception as error:  # as above
                reason = _first_line(error)
        if reason:
            raise _unavailable(repository, config, name, reason, whole=True)
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
