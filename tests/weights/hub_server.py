"""A stand-in for the Hugging Face hub on localhost: real HTTP, with faults on request."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """One repository, ``owner/name``. ``requests`` lists (method, path, range)."""

    files: dict[str, bytes]
    large: tuple[str, ...] = (".safetensors", ".bin", ".ckpt")  # kept in large-file storage
    cut: dict[str, int] = field(default_factory=dict)  # file -> close after this many bytes, once
    damage: dict[str, int] = field(default_factory=dict)  # file -> how often to send wrong bytes
    etags: dict[str, str] = field(default_factory=dict)  # file -> what it is called instead
    longer: dict[str, int] = field(default_factory=dict)  # file -> bytes that are sent beyond it
    hashless: bool = False  # states no hash of any file
    commit: str = COMMIT
    status: int = 200
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""

    def description(self) -> dict:
        siblings = []
        for name, data in self.files.items():
            head = f"blob {len(data)}\0".encode()
            entry = {
                "rfilename": name,
                "size": len(data),
                "blobId": hashlib.sha1(head + data).hexdigest(),
            }
            if name.endswith(self.large):
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            if self.hashless:
                entry = {"rfilename": name, "size": len(data)}
            siblings.append(entry)
        return {
            "id": "owner/name",
            "sha": self.commit,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }

    def etag(self, name: str) -> str:
        return self.etags.get(name) or hashlib.sha256(self.files[name]).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer as ``hub`` says, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append((self.command, path, self.headers.get("Range", "")))
            if hub.status != 200:
                self.plain(hub.status, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            elif path.startswith("/api/models/owner/name"):
                data = json.dumps(hub.description()).encode()
                self.plain(200, data, {"Content-Type": "application/json"}, body)
            elif path.startswith(f"/owner/name/resolve/{COMMIT}/"):
                self.file(path.split(f"{COMMIT}/", 1)[1], body)
            else:
                self.plain(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

        def plain(self, status: int, data: bytes, headers: dict, body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def file(self, name: str, body: bool) -> None:
            data = hub.files[name]
            if body and hub.damage.get(name):
                hub.damage[name] -= 1
                data = bytes([data[0] ^ 1]) + data[1:]
            data += bytes(hub.longer.get(name, 0))
            start = 0
            if wanted := self.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hub.etag(name)}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not body:
                return
            end = len(data)
            if name in hub.cut:
                end = start + hub.cut.pop(name)
                self.close_connection = True
            self.wfile.write(data[start:end])
            self.wfile.flush()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
