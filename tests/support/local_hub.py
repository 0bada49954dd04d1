"""A model hub on this machine, with the paths and headers that the hub's client reads."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

COMMIT = "5" * 40


@dataclass
class LocalHub:
    """What the hub holds and how it misbehaves; one repository, "org/small".

    Attributes:
        files: Content by name.
        claimed_size: Size that it claims of every file; None for the true one.
        damaged: Whether files arrive with their last byte changed.
        cut_after: Bytes after which each connection is cut; None for never.
        private: Whether it answers 401.
        refused: Names of files for which it answers 403.
        downloads: Names of the files that were asked for.
    """

    files: dict[str, bytes]
    claimed_size: int | None = None
    damaged: bool = False
    cut_after: int | None = None
    private: bool = False
    refused: frozenset[str] = frozenset()
    downloads: list[str] = field(default_factory=list)
    endpoint: str = ""

    @contextmanager
    def troubled(self, **changes: Any) -> Iterator[None]:
        """Misbehave for a while."""
        working = {name: getattr(self, name) for name in changes}
        vars(self).update(changes)
        yield
        vars(self).update(working)


@contextmanager
def serve(hub: LocalHub) -> Iterator[LocalHub]:
    """Serve a hub on the loopback interface while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = urlparse(self.path).path
            if path == "/":
                self.send(200, b"", body=body)
            elif hub.private:
                self.send(401, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
            elif path.startswith("/api/models/org/small/tree/"):
                folder = path.removeprefix("/api/models/org/small/tree/").partition("/")[2]
                if entries := self.tree(folder):
                    self.send(200, json.dumps(entries).encode(), body=body)
                else:
                    self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body=body)
            elif path.startswith("/api/models/org/small"):
                self.send(200, json.dumps(self.model()).encode(), body=body)
            elif path.startswith("/org/small/resolve/"):
                self.file(path.removeprefix("/org/small/resolve/").partition("/")[2], body=body)
            else:
                self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)

        def model(self) -> dict[str, object]:
            return {
                "id": "org/small",
                "sha": COMMIT,
                "tags": ["license:mit"],
                "siblings": [
                    {"rfilename": name, "size": hub.claimed_size or len(content)}
                    for name, content in hub.files.items()
                ],
            }

        def tree(self, folder: str) -> list[dict[str, object]]:
            """All files below a folder, and the folders that they lie in."""
            start = f"{folder}/" if folder else ""
            files = {name: text for name, text in hub.files.items() if name.startswith(start)}
            parents = {str(parent) for name in files for parent in PurePosixPath(name).parents}
            folders = sorted(name for name in parents if name.startswith(start) and name != ".")
            return [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders] + [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in files.items()
            ]

        def file(self, name: str, *, body: bool) -> None:
            if name not in hub.files:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)
                return
            if name in hub.refused:
                self.send(403, b"{}", body=body)
                return
            content = hub.files[name]
            etag = hashlib.sha256(content).hexdigest()
            if body:
                hub.downloads.append(name)
            if hub.damaged:
                content = content[:-1] + bytes([content[-1] ^ 1])
            start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            headers["X-Linked-Size"] = str(len(content))
            self.send(206 if start else 200, content[start:], headers, body=body)

        def send(
            self, status: int, content: bytes, headers: dict[str, str] | None = None, *, body: bool
        ) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content[: hub.cut_after] if len(content) > 10_000 else content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
