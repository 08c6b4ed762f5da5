# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Downloads from a server on this machine that answers like the Hugging Face hub, healthy or not."""

import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download, scan_cache_dir, try_to_load_from_cache

from anomalib_aprilgan.components import hub
from anomalib_aprilgan.components.hub import WeightsNotFoundError, fetch_from_hub, find_in_hub_cache
from anomalib_aprilgan.components.weights import file_digest

REPOSITORY = "org/clip"
BEST, SECOND, THIRD = hub.CHECKPOINT_NAMES
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = bytes(range(256)) * 64
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SNAPSHOT = Path("models--org--clip", "snapshots", COMMIT)


class StandIn(ThreadingHTTPServer):
    """The hub, as far as its client needs it for one repository.

    Attributes:
        files: Content by name.
        status: What every request for a file is answered with, unless all is well.
        cuts: Bytes after which the coming downloads break off, one entry a download.
        resets: Whether they break off with an error of the connection instead of a mere end.
        stalls: Whether they break off with neither, but stay open.
        awaited: Number of clients that must have asked about the file before it is handed out.
        etag: Name of the content, if not its SHA-256.
        storage: Address of another server that hands the files out.
        requests: Method, name and range of every request for a file.
        tokens: What every request for a file was authorized with.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {BEST: CONTENT}
        self.status = 200
        self.cuts: list[int] = []
        self.resets = False
        self.stalls = False
        self.awaited = 0
        self.etag = ""
        self.storage = ""
        self.requests: list[tuple[str, str, str | None]] = []
        self.tokens: list[str | None] = []
        self.changed = threading.Condition()
        self.is_over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def note(self, request: tuple[str, str, str | None]) -> None:
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def count(self, method: str) -> int:
        return sum(request[0] == method for request in self.requests)

    @property
    def ranges(self) -> list[str | None]:
        """What every request for the content of a file asked for; None for all of it."""
        return [request[2] for request in self.requests if request[0] == "GET"]


class Handler(BaseHTTPRequestHandler):
    """Answers ``/org/clip/resolve/main/NAME``."""

    server: StandIn

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        if "/resolve/main/" not in self.path:  # a probe, or the client's questions about other things
            self._send_head(200 if self.path == "/" else 404)
            return
        repository, name = self.path.strip("/").split("/resolve/main/")
        self.server.tokens.append(self.headers["Authorization"])
        self.server.note((self.command, name, self.headers["Range"]))
        content = self.server.files.get(name)
        if self.server.status != 200:
            self._send_head(self.server.status)
        elif repository != REPOSITORY:
            self._send_head(404, {"X-Error-Code": "RepoNotFound"})
        elif content is None:
            self._send_head(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self._send_file(content)

    def _send_file(self, content: bytes) -> None:
        start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1])
        etag = self.server.etag or hashlib.sha256(content).hexdigest()
        head = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"', "Accept-Ranges": "bytes"}
        head |= {"X-Linked-Size": str(len(content)), "Content-Length": str(len(content) - start)}
        if self.server.storage:
            self._send_head(302, head | {"Location": self.server.storage + self.path, "Content-Length": "0"})
            return
        if start:
            head["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.command == "GET":
            with self.server.changed:
                assert self.server.changed.wait_for(lambda: self.server.count("HEAD") >= self.server.awaited, 30)
        self._send_head(206 if start else 200, head)
        if self.command == "GET":
            end = start + self.server.cuts.pop(0) if self.server.cuts else len(content)
            self.wfile.write(content[start:end])
            self.close_connection = end < len(content)
            if end < len(content) and self.server.stalls:
                self.server.is_over.wait(30)
            elif end < len(content) and self.server.resets:
                # A socket that may not linger is closed with an error instead of an end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    def _send_head(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this test, empty; the network is allowed."""
    folder = tmp_path / "hub_cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client retries at once."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )


@contextmanager
def serving() -> Generator[StandIn, None, None]:
    with StandIn() as stand_in:
        thread = threading.Thread(target=stand_in.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield stand_in
        finally:
            stand_in.is_over.set()
            stand_in.shutdown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A healthy hub with the best of the names; the client goes there."""
    with serving() as stand_in:
        use_endpoint(monkeypatch, stand_in.url)
        yield stand_in


@pytest.fixture
def partial(hub_cache: Path) -> Path:
    """Where a broken download of the file keeps what it has received."""
    return hub_cache / "models--org--clip" / "blobs" / f"{DIGEST}.incomplete"


def keep(partial: Path, content: bytes) -> None:
    """As if an earlier download had broken off."""
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content)


def files_in(folder: Path) -> set[str]:
    """Names of everything that could be taken for weights."""
    found = [path for part in ("snapshots", "blobs") for path in folder.glob(f"*/{part}/**/*")]
    return {path.name for path in found if path.is_file() and path.suffix != ".incomplete"}


def test_weights_land_in_the_hubs_cache(server, hub_cache):
    path = fetch_from_hub(REPOSITORY)
    assert path == hub_cache / SNAPSHOT / BEST
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None]


def test_the_hubs_own_client_finds_them_without_network(server, hub_cache, monkeypatch):
    path = fetch_from_hub(REPOSITORY)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert hf_hub_download(REPOSITORY, BEST) == try_to_load_from_cache(REPOSITORY, BEST) == str(path)
    assert not server.requests
    (repository,) = scan_cache_dir(hub_cache).repos
    (revision,) = repository.revisions
    assert (revision.commit_hash, revision.refs, revision.size_on_disk) == (COMMIT, {"main"}, len(CONTENT))


def test_weights_that_are_there_need_no_network(server):
    path = fetch_from_hub(REPOSITORY)
    server.requests.clear()
    server.status = 500
    assert fetch_from_hub(REPOSITORY) == find_in_hub_cache(REPOSITORY) == path
    assert not server.requests


def test_nothing_is_in_an_empty_cache(server):
    assert find_in_hub_cache(REPOSITORY) is None
    assert not server.requests


def test_a_link_to_a_deleted_file_is_not_weights(server):
    path = fetch_from_hub(REPOSITORY)
    path.resolve().unlink()
    assert find_in_hub_cache(REPOSITORY) is None
    assert fetch_from_hub(REPOSITORY).read_bytes() == CONTENT


def test_the_hubs_name_of_a_file_is_its_digest(server, cache_folder):
    assert file_digest(fetch_from_hub(REPOSITORY)) == hashlib.sha256(CONTENT).hexdigest()
    assert not any(cache_folder.iterdir())


def test_the_next_name_is_taken_where_the_best_is_missing(server, hub_cache):
    server.files = {THIRD: b"third", SECOND: b"second"}
    assert fetch_from_hub(REPOSITORY) == hub_cache / SNAPSHOT / SECOND
    assert [request[:2] for request in server.requests[:3]] == [("HEAD", BEST), ("HEAD", SECOND), ("GET", SECOND)]
    assert server.count("GET") == 1
    server.requests.clear()
    assert fetch_from_hub(REPOSITORY).read_bytes() == b"second"
    assert not server.requests


def test_only_the_names_asked_for_are_looked_at(server):
    server.files["own.bin"] = b"own"
    assert fetch_from_hub(REPOSITORY, ["own.bin"]).read_bytes() == b"own"
    assert {request[1] for request in server.requests} == {"own.bin"}


def test_a_repository_without_weights_is_refused(server, hub_cache):
    server.files = {"README.md": b"# CLIP"}
    with pytest.raises(
        WeightsNotFoundError, match=rf"'{BEST}' of 'org/clip'.*the repository holds none of these files"
    ):
        fetch_from_hub(REPOSITORY)
    assert [name for _, name, _ in server.requests] == [BEST, SECOND, THIRD]
    assert not files_in(hub_cache)


def test_an_unknown_repository_is_refused(server):
    with pytest.raises(WeightsNotFoundError, match=r"'org/clap'.*Repository Not Found"):
        fetch_from_hub("org/clap")


def test_a_name_that_is_no_repository_is_refused(server):
    with pytest.raises(ValueError, match="Repo id must"):
        fetch_from_hub("org/clip/extra")
    assert not server.requests


def test_a_broken_download_goes_on_where_it_stopped(server, no_waiting, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.cuts = [5000]
    assert fetch_from_hub(REPOSITORY).read_bytes() == CONTENT
    # Of the 5000 bytes, the client has kept the full chunks.
    assert server.ranges == [None, "bytes=4096-"]


@pytest.mark.parametrize("resets", [False, True], ids=["end", "reset"])
def test_a_download_that_never_ends_well_leaves_no_weights(server, no_waiting, hub_cache, resets):
    server.cuts, server.resets = [1000] + [0] * 20, resets
    with pytest.raises(WeightsNotFoundError, match=rf"'{BEST}' of 'org/clip' are not on this machine"):
        fetch_from_hub(REPOSITORY)
    assert find_in_hub_cache(REPOSITORY) is None
    assert not files_in(hub_cache)
    server.cuts = []
    assert fetch_from_hub(REPOSITORY).read_bytes() == CONTENT


def test_a_killed_process_is_followed_by_one_that_goes_on(server, hub_cache, partial):
    server.cuts, server.stalls = [len(CONTENT) // 2], True
    first = start_fetching(server, hub_cache)
    wait_until(lambda: partial.exists() and partial.stat().st_size >= 4096)
    first.kill()
    first.communicate(timeout=30)
    kept = partial.stat().st_size
    assert partial.read_bytes() == CONTENT[:kept]
    second = start_fetching(server, hub_cache)
    answer = second.communicate(timeout=30)
    assert answer[0].strip() == str(hub_cache / SNAPSHOT / BEST), answer
    assert (hub_cache / SNAPSHOT / BEST).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={kept}-"]
    assert not partial.exists()


def test_a_complete_part_needs_no_more_than_a_name(server, partial):
    keep(partial, CONTENT)
    assert fetch_from_hub(REPOSITORY).read_bytes() == CONTENT
    assert not server.ranges


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (b"x" * 1000, ["bytes=1000-", None]),
        (CONTENT[:-1] + b"x", [None]),
        (CONTENT + b"x", [None]),
        (b"", [None]),
    ],
    ids=["other", "damaged", "longer", "empty"],
)
def test_a_part_of_another_file_is_dropped(server, partial, caplog, content, asked):
    keep(partial, content)
    assert fetch_from_hub(REPOSITORY).read_bytes() == CONTENT
    assert server.ranges == asked
    assert ("is damaged or of another file: downloading from the start" in caplog.text) == bool(content)


@pytest.mark.parametrize("kept", [None, CONTENT[:1000]], ids=["fresh", "resumed"])
def test_a_file_that_is_not_what_the_hub_says_is_refused(server, hub_cache, partial, kept):
    server.etag = DIGEST
    server.files = {BEST: CONTENT[:-1] + b"x"}
    if kept is not None:
        keep(partial, kept)
    found = hashlib.sha256(server.files[BEST]).hexdigest()
    with pytest.raises(WeightsNotFoundError, match=f"holds another file: expected SHA-256 {DIGEST}, found {found}"):
        fetch_from_hub(REPOSITORY)
    assert server.count("GET") == 1 + (kept is not None)
    assert not files_in(hub_cache)
    assert not partial.exists()


def test_a_file_without_a_known_hash_is_left_to_the_hubs_client(server, hub_cache):
    server.etag = "v1"
    path = fetch_from_hub(REPOSITORY)
    assert path.read_bytes() == CONTENT
    assert files_in(hub_cache) == {BEST, "v1"}


def test_files_may_lie_on_another_server_which_is_not_given_the_token(server, partial, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    keep(partial, CONTENT[:1000])
    with serving() as storage:
        server.storage = storage.url
        assert fetch_from_hub(REPOSITORY).read_bytes() == CONTENT
        assert (storage.ranges, storage.tokens) == (["bytes=1000-"], [None])
    assert set(server.tokens) == {"Bearer hf_secret"}


@pytest.mark.parametrize("status", [403, 500, 503])
def test_what_a_refusing_server_says_is_passed_on(server, no_waiting, hub_cache, status):
    server.status = status
    with pytest.raises(WeightsNotFoundError, match=rf"'{BEST}' of 'org/clip'.*{status}.*pretrained=PATH"):
        fetch_from_hub(REPOSITORY)
    assert not files_in(hub_cache)


def test_errors_of_any_client_are_explained(server, monkeypatch):
    # hf_xet, which serves large files of the real hub, raises a mere RuntimeError.
    def fail(*arguments, etag_timeout):
        msg = "CAS service error"
        raise RuntimeError(msg)

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    with pytest.raises(WeightsNotFoundError, match=r"'org/clip'.*CAS service error.*pretrained=PATH"):
        fetch_from_hub(REPOSITORY)


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(WeightsNotFoundError, match=r"(File exists|Not a directory).*put the hub's cache.*file/hub"):
        fetch_from_hub(REPOSITORY)


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A port that takes connections and says nothing; the client goes there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_endpoint(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        yield silent


def refuse_soon(monkeypatch: pytest.MonkeyPatch) -> str:
    """Fail to fetch, sooner than after the 23 seconds of the hub's own client, and return what is said."""
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    crashes = []
    monkeypatch.setattr(threading, "excepthook", crashes.append)
    start = time.monotonic()
    with pytest.raises(WeightsNotFoundError, match=f"{constants.ENDPOINT} cannot be reached") as caught:
        fetch_from_hub(REPOSITORY)
    assert time.monotonic() - start < 15
    assert not crashes
    return str(caught.value)


def test_a_silent_server_is_given_up_soon(listener, monkeypatch):
    assert hub.PROBE_SECONDS <= 5
    refuse_soon(monkeypatch)


def test_an_unreachable_hub_is_given_up_soon_with_all_remedies(listener, hub_cache, monkeypatch):
    listener.close()
    message = refuse_soon(monkeypatch)
    for remedy in (f"copy the file ({BEST} or", "pretrained=PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HOME"):
        assert remedy in message
    assert str(hub_cache / "models--org--clip") in message


def test_a_server_that_is_no_web_server_is_given_up_soon(listener, monkeypatch):
    threading.Thread(target=lambda: listener.accept()[0].sendall(b"220 mail.example ready\r\n"), daemon=True).start()
    refuse_soon(monkeypatch)


def test_an_endpoint_without_a_scheme_is_given_up_soon(monkeypatch):
    use_endpoint(monkeypatch, "hub.invalid")
    refuse_soon(monkeypatch)


def test_a_name_that_nobody_looks_up_is_given_up_soon(monkeypatch):
    use_endpoint(monkeypatch, "http://hub.invalid")
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **keywords: answer.wait(30) and [])
    refuse_soon(monkeypatch)
    answer.set()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "ANOMALIB_APRILGAN_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_nobody_is_asked(variable, server, monkeypatch):
    if variable == "HF_HUB_OFFLINE":
        monkeypatch.setattr(constants, variable, True)  # the client reads it once
    else:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(hub, "_is_reachable", lambda endpoint: pytest.fail("asked for the network"))
    with pytest.raises(WeightsNotFoundError, match=f"{variable} forbids the network"):
        fetch_from_hub(REPOSITORY)
    assert not server.requests


def test_offline_the_cache_serves(server, monkeypatch):
    path = fetch_from_hub(REPOSITORY)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_from_hub(REPOSITORY) == path


def start_fetching(server: StandIn, hub_cache: Path) -> subprocess.Popen:
    # In an empty package around the module: the real one would import anomalib, for ten seconds.
    code = f"""
        import sys, types
        from huggingface_hub import constants
        constants.DOWNLOAD_CHUNK_SIZE = 1024
        package = sys.modules["package"] = types.ModuleType("package")
        package.__path__ = [{str(Path(hub.__file__).parent)!r}]
        from package.hub import fetch_from_hub
        print(fetch_from_hub({REPOSITORY!r}))
    """
    settings = {"HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", "if True:" + code]
    return subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_two_processes_get_the_same_good_file_and_one_downloads(server, hub_cache):
    server.awaited = 2
    processes = [start_fetching(server, hub_cache) for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert [answer[0].strip() for answer in answers] == [str(hub_cache / SNAPSHOT / BEST)] * 2, answers
    assert (hub_cache / SNAPSHOT / BEST).read_bytes() == CONTENT
    assert server.ranges == [None]
    assert files_in(hub_cache) == {BEST, DIGEST}
