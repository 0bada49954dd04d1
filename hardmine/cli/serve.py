"""``hardmine serve``: pages on one's own machine to ask, look and check."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import ipaddress
import secrets
import socket
import webbrowser
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from hardmine.cli.progress import console
from hardmine.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from hardmine.serve import Workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_source_arguments(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; others than this machine's own can be reached from the network "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on (default: a free one)"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")


def add_source_arguments(
    parser: argparse.ArgumentParser, *, required: Collection[str] = ()
) -> None:
    """Declare what a workspace is opened from.

    Args:
        parser: Of the command.
        required: Of "ann" and "pool", those that must be given.
    """
    parser.add_argument("index", type=Path, help="folder of the index")
    parser.add_argument(
        "--ann",
        type=Path,
        metavar="FILE",
        required="ann" in required,
        help="labels of the index's images",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images, if they were moved"
    )
    parser.add_argument(
        "--detections", type=Path, metavar="FILE", help="COCO results file of the detector (.json)"
    )
    parser.add_argument(
        "--val-ann",
        type=Path,
        metavar="FILE",
        help="labels of the images that the detections are on (default: --ann)",
    )
    parser.add_argument(
        "--val-index",
        type=Path,
        metavar="DIR",
        help="index of the images that the detections are on (default: INDEX)",
    )
    parser.add_argument(
        "--rounds", type=Path, metavar="FILE", help="rounds file that a training writes"
    )
    parser.add_argument(
        "--pool",
        type=Path,
        metavar="DIR",
        required="pool" in required,
        help="index of unlabelled images to collect from",
    )
    parser.add_argument("--encoder", help="encoder to use (default: the one that built the index)")
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="folder for what you keep and check (default: beside the index, ending in .serve)",
    )


def open_sources(args: argparse.Namespace) -> Workspace:
    """Open what the arguments name."""
    from hardmine.serve import open_workspace

    return open_workspace(
        args.index,
        ann=args.ann,
        images=args.images,
        detections=args.detections,
        val_ann=args.val_ann,
        val_index=args.val_index,
        rounds=args.rounds,
        pool=args.pool,
        encoder=args.encoder,
        device=args.device,
        folder=args.keep,
    )


def run(args: argparse.Namespace) -> int:
    """Open everything, then serve until interrupted."""
    for library in ("starlette", "uvicorn"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtra("serve", "hardmine serve")
    from hardmine.serve.access import Access
    from hardmine.serve.app import make_app
    from hardmine.serve.site import Site

    site = Site(open_sources(args))
    listening = _listen(args.host, args.port)
    access = Access(secrets.token_urlsafe(24), _names(args.host))
    port = listening.getsockname()[1]
    print(_address(args.host, port, access.token), flush=True)
    if not _is_local(args.host):
        console.print(
            "[yellow]Everyone on the network who has this address sees the images, and what they "
            "send is not encrypted.[/yellow]"
        )
    console.print("Stop with Ctrl+C.")
    if not args.no_browser:
        code = secrets.token_urlsafe(24)
        access.codes.add(code)
        webbrowser.open(_address(args.host, port, code))
    # Ctrl+C is how it is stopped.
    with contextlib.suppress(KeyboardInterrupt):
        _serve(make_app(site, access), listening)
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is listening already, so that a browser may come at once."""
    if not 0 <= port <= 65_535:
        raise InputError(f"--port must lie in 0 to 65535, got {port}")
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error}; give another --host or --port"
        ) from error
    return listening


def _names(host: str) -> frozenset[str]:
    """Names by which the server may be called: the one given, or the machine's own."""
    if _is_local(host):
        return frozenset()
    return frozenset(name.lower() for name in (host, socket.gethostname(), socket.getfqdn()))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(host: str, port: int, token: str) -> str:
    """The address to open, token and all."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host
    else:
        # "Any address" is none that can be called.
        plain = socket.gethostname() if address.is_unspecified else host
        name = f"[{plain}]" if ":" in plain else plain
    return f"http://{name}:{port}/?token={token}"


def _serve(app: ASGIApp, listening: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=200,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[listening])
