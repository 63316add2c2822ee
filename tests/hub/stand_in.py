"""A stand-in of the Hugging Face Hub on loopback: as much of its HTTP API as huggingface_hub asks for here."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

TOKEN = "hf_of_the_tests"


@dataclass
class Repository:
    """The files at its head, and how many commits have made them."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0

    @property
    def sha(self) -> str:
        return sha1(str(self.commits).encode()).hexdigest()


@dataclass
class Hub:
    """What the stand-in holds, and how it fails."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files, by their SHA-256."""
    fails: list[tuple[str, int]] = field(default_factory=list)
    """(pattern of "METHOD /path", status): such requests are answered by it."""
    cuts: int = 0
    """So many downloads end in the middle."""
    before_commit: Callable[[], None] | None = None
    """Called once, before the next commit is looked at."""
    asked: list[str] = field(default_factory=list)
    """Every request, as "METHOD /path"."""

    def add(self, name: str, **files: bytes) -> Repository:
        """A public repository with these files; `__` in a name stands for a dot, `___` for a slash."""
        there = {one.replace("___", "/").replace("__", "."): content for one, content in files.items()}
        self.repositories[name] = Repository(private=False, files=there, commits=1)
        return self.repositories[name]


def environment(hub: "Hub", home: Path) -> dict[str, str]:
    """Variables with which the client asks this hub alone, over plain HTTP. home: for what it fetched."""
    told = {"ENDPOINT": hub.address, "TOKEN": TOKEN, "HOME": str(home), "HUB_OFFLINE": "0", "HUB_DISABLE_XET": "1"}
    return {f"HF_{name}": value for name, value in told.items()}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers at its address until the context ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path = self.path.split("?")[0]
        asked = f"{self.command} {path}"
        self.hub.asked.append(asked)
        status = next((status for pattern, status in self.hub.fails if re.search(pattern, asked)), None)
        if status is not None:
            self._send(status, {"error": "as the test wants it"})
            return
        for pattern, act in _ROUTES:
            if match := re.fullmatch(pattern, asked):
                act(self, body, **match.groupdict())
                return
        self._send(404, {"error": f"no such thing: {asked}"})

    def _send(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._send(401, {"error": "Invalid username or password."})
        return False

    def _repository(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            self._send(404 if known else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        return repository

    def create(self, body: bytes) -> None:
        if not self._may_write():
            return
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        address = {"url": f"{self.hub.address}/{name}", "name": name, "id": name}
        if name in self.hub.repositories:
            self._send(409, {**address, "error": "You already created this model repo"})
            return
        self.hub.repositories[name] = Repository(private=asked.get("visibility", "public") != "public")
        self._send(200, address)

    def about(self, body: bytes, name: str, revision: str = "main") -> None:
        if (repository := self._repository(name)) is None:
            return
        if revision not in ("main", repository.sha):
            self._send(404, {"error": "no such revision"}, X_Error_Code="RevisionNotFound")
            return
        siblings = [{"rfilename": file} for file in repository.files]
        self._send(200, {"id": name, "sha": repository.sha, "siblings": siblings, "private": repository.private})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        if (repository := self._repository(name)) is not None:
            files = [
                {"type": "file", "path": file, "size": len(content), "oid": sha1(content).hexdigest()}
                for file, content in repository.files.items()
            ]
            self._send(200, files)

    def preupload(self, body: bytes, name: str) -> None:
        if self._may_write():
            files = json.loads(body)["files"]
            modes = [("lfs" if file["path"].endswith(".safetensors") else "regular", file) for file in files]
            told = [
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
                for mode, file in modes
            ]
            self._send(200, {"files": told})

    def batch(self, body: bytes, name: str) -> None:
        if self._may_write():
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/store/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        assert sha256(body).hexdigest() == oid
        self.hub.stored[oid] = body
        self._send(200, {})

    def commit(self, body: bytes, name: str) -> None:
        if not self._may_write() or (repository := self._repository(name)) is None:
            return
        if self.hub.before_commit:
            self.hub.before_commit()
            self.hub.before_commit = None
        lines = [json.loads(line) for line in body.splitlines()]
        head = next(line["value"] for line in lines if line["key"] == "header")
        if head.get("parentCommit") not in (None, repository.sha):
            self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        for line in lines:
            if line["key"] == "file":
                repository.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            if line["key"] == "lfsFile":
                repository.files[line["value"]["path"]] = self.hub.stored[line["value"]["oid"]]
        repository.commits += 1
        address = f"{self.hub.address}/{name}/commit/{repository.sha}"
        self._send(200, {"commitUrl": address, "commitOid": repository.sha, "success": True})

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        if (repository := self._repository(name)) is None:
            return
        if file not in repository.files:
            self._send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            return
        content = repository.files[file]
        about = {"ETag": f'"{sha256(content).hexdigest()}"', "X_Repo_Commit": repository.sha}
        if self.command == "GET" and self.hub.cuts:
            self.hub.cuts -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self._send(200, content, **about)

    def check_card(self, body: bytes) -> None:
        assert json.loads(body)["content"].startswith("---\n")
        self._send(200, {"errors": [], "warnings": []})


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, Callable[..., None]]] = [
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.check_card),
    (rf"GET /api/models/{_NAME}", _Handler.about),
    (rf"GET /api/models/{_NAME}/revision/(?P<revision>[\w.-]+)", _Handler.about),
    (rf"GET /api/models/{_NAME}/tree/(?P<revision>[\w.-]+)/?", _Handler.tree),
    (rf"POST /api/models/{_NAME}/preupload/main", _Handler.preupload),
    (rf"POST /api/models/{_NAME}/commit/main", _Handler.commit),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /store/(?P<oid>\w+)", _Handler.store),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/(?P<revision>[\w.-]+)/(?P<file>.+)", _Handler.resolve),
]
