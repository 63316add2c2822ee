"""Stores for tests: a bucket of moto's S3 server on loopback, fsspec's memory, a server that fails on purpose."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEYS = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
}
"""What botocore reads from the environment."""


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server with a bucket named `bucket`."""
    import boto3
    import s3fs
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        client = boto3.client("s3", endpoint_url=address, aws_access_key_id="a", aws_secret_access_key="b")
        client.create_bucket(Bucket="bucket")
        s3fs.S3FileSystem.clear_instance_cache()  # one made before asks the server of an earlier test
        yield address
    finally:
        server.stop()


def fill_memory(folder: Path, url: str) -> None:
    """Put the files of a folder, and of those in it, into fsspec's memory."""
    import fsspec

    system = fsspec.filesystem("memory")
    for file in folder.rglob("*"):
        if file.is_file():
            system.pipe(f"{url}/{file.relative_to(folder)}", file.read_bytes())


class Fault(Exception):
    """What a `Server` is to do wrong: `how` is "500", "cut" or "stall"."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Server:
    """Files of a folder over HTTP, as S3 gives them: sizes by HEAD, parts by Range. `ask(path, range)` is called
    before each answer, and raises Fault for one that goes wrong.
    """

    def __init__(self, folder: Path, ask: Callable[[str, str], None]) -> None:
        self.folder, self.ask = folder, ask
        self.asked: list[tuple[str, str]] = []
        """The path and the range of each request for bytes."""
        self.released = threading.Event()
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                return

            def do_HEAD(self) -> None:
                served.answer(self, has_body=False)

            def do_GET(self) -> None:
                served.answer(self, has_body=True)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, *, has_body: bool) -> None:
        """One answer."""
        path = self.folder / handler.path.lstrip("/").split("?")[0]
        asked_range = handler.headers.get("Range") or ""
        if not path.is_file():
            return self._end(handler, 404)
        data = path.read_bytes()
        fault = ""
        if has_body:
            self.asked.append((path.name, asked_range))
            try:
                self.ask(path.name, asked_range)
            except Fault as wrong:
                fault = wrong.how
        if fault == "500":
            return self._end(handler, 500)
        if fault == "stall":
            self.released.wait()
            return None
        begin, end = 0, len(data)
        if asked_range:
            first, _, last = asked_range.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) + 1, len(data))
        handler.send_response(206 if asked_range else 200)
        handler.send_header("Content-Length", str(end - begin))
        handler.send_header("Accept-Ranges", "bytes")
        if asked_range:
            handler.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        handler.end_headers()
        if has_body:
            handler.wfile.write(data[begin : begin + (end - begin) // 2] if fault == "cut" else data[begin:end])
        if fault == "cut":
            handler.close_connection = True
        return None

    def _end(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


def content(path: Path) -> Any:
    """Of a JSON file, without what wrote it."""
    held = json.loads(path.read_text())
    held.pop("provenance", None)
    return held
