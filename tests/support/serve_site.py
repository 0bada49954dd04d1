"""A running server over the toy data, with real image files and hostile names."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from PIL import Image
from toy_data import ToyData, WordEncoder, make_toy_data
from toy_miner import detections_of

from hardmine.index.search.exact import ExactIndex
from hardmine.serve import Workspace
from hardmine.serve.access import Access
from hardmine.serve.app import make_app
from hardmine.serve.site import Site

TOKEN = "the-token-of-the-tests"
HOSTILE = '<img src=x onerror="document.title=1">.png'


@dataclass(frozen=True)
class Running:
    """A server, what it shows, and a client that has the token."""

    site: Site
    toy: ToyData
    port: int
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def make_workspace(folder: Path) -> tuple[Workspace, ToyData]:
    """Toy images with colours as files; the first has a hostile name, the second is broken."""
    toy = make_toy_data(120, missing=0.3)
    root = folder / "images"
    root.mkdir(parents=True)
    names = [HOSTILE, "broken.png", *(f"{place}.png" for place in range(2, 120))]
    rng = np.random.default_rng(0)
    for name in names:
        colour = rng.integers(0, 255, 3)
        Image.fromarray(np.full((60, 100, 3), colour, np.uint8)).save(root / name)
    (root / "broken.png").write_bytes(b"no picture")
    store = replace(
        toy.index.store,
        root=root,
        paths=tuple(names),
        sizes=np.tile(np.int32([60, 100]), (120, 1)),
    )
    shutil.copytree(root, folder / "pool")
    pool = replace(
        make_toy_data(120, seed=9).index.store,
        root=folder / "pool",
        paths=tuple(reversed(names)),
        sizes=store.sizes,
    )
    images = replace(toy.images, paths=tuple(names), class_names=("car", "fork<b>", "zebra"))
    detections = folder / "detections.json"
    detections.write_text(json.dumps(detections_of(toy, miss_at_night="car")))
    space = Workspace(
        name="toy<i>.hmx",
        index=ExactIndex(store),
        encoder=WordEncoder(),
        images=images,
        val_images=images,
        val_index=ExactIndex(store),
        detections=detections,
        rounds=folder / "rounds.jsonl",
        pool=ExactIndex(pool),
        folder=folder / "kept",
    )
    return space, toy


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Serve the toy data on a free port."""
    space, toy = make_workspace(folder)
    site = Site(space)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        make_app(site, Access(TOKEN)), log_level="critical", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        yield Running(site, toy, port, client)
    server.should_exit = True
    thread.join(10)
