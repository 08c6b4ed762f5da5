# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Downloads from a server on this machine, healthy or not: the right file arrives whole, or an error says why not."""

import hashlib
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from anomalib_aprilgan.components import download as module
from anomalib_aprilgan.components.download import DownloadError, download, git_blob_hash, is_intact

CONTENT = bytes(range(256)) * 1024
SIZE = len(CONTENT)
BLOB = hashlib.sha1(b"blob 262144\x00" + CONTENT).hexdigest()


class StandIn(ThreadingHTTPServer):
    """A server with one file.

    Attributes:
        content: Of the file.
        status: What every request is answered with, unless all is well.
        knows_ranges: Whether it sends a part of the file if asked for it.
        is_chunked: Whether it sends the file without telling its length.
        cuts: Bytes after which the coming downloads break off, one entry a download.
        ending: How they break off: "end", "reset" or "stall".
        part: Where the client keeps what came; a reset waits for it, because it loses what is on its way.
        delay: Seconds between the request and the file.
        ranges: Header of every request; None for the whole file.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.status = 200
        self.knows_ranges = True
        self.is_chunked = False
        self.cuts: list[int] = []
        self.ending = "end"
        self.part = Path()
        self.delay = 0.0
        self.ranges: list[str | None] = []
        self.is_over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/folder/file.pth"


class Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", server.url)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server.ranges.append(self.headers["Range"])
        self.close_connection = True
        server.is_over.wait(server.delay)
        start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1]) if server.knows_ranges else 0
        if server.status != 200:
            self.send_error(server.status)
        elif start and start >= len(server.content):
            self.send_error(416)
        else:
            self._send_file(start)

    def _send_file(self, start: int) -> None:
        content = self.server.content
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(content)
        if self.server.is_chunked:
            self.wfile.write(b"%x\r\n%s\r\n" % (end - start, content[start:end]) + b"0\r\n\r\n" * (end == len(content)))
        else:
            self.wfile.write(content[start:end])
        if end < len(content) and self.server.ending == "stall":
            self.server.is_over.wait(30)
        elif end < len(content) and self.server.ending == "reset":
            wait_until(lambda: has_begun(self.server.part))
            # A socket that may not linger is closed with an error instead of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def has_begun(part: Path) -> bool:
    return part.exists() and part.stat().st_size >= 1000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with StandIn() as stand_in:
        thread = threading.Thread(target=stand_in.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield stand_in
        stand_in.is_over.set()
        stand_in.shutdown()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.pth"


@pytest.fixture
def part(target: Path) -> Path:
    return target.with_name("file.pth.part")


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    monkeypatch.setattr(module, "_temporary_folder", lambda: folder)
    return folder


def names_beside(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()} - {f".{target.name}.lock"}


def keep(part: Path, content: bytes) -> None:
    """As if an earlier download had broken off."""
    part.parent.mkdir()
    part.write_bytes(content)


class TestHash:
    def test_it_is_gits(self, tmp_path):
        (tmp_path / "file").write_bytes(b"hello\n")
        assert (
            git_blob_hash(tmp_path / "file") == "ce013625030ba8dba906f756967f9e9ca394464a"
        )  # echo hello | git hash-object --stdin

    def test_it_covers_files_longer_than_a_piece(self, tmp_path):
        content = CONTENT * 9
        (tmp_path / "file").write_bytes(content)
        assert git_blob_hash(tmp_path / "file") == hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()

    def test_of_an_empty_file(self, tmp_path):
        (tmp_path / "file").touch()
        assert git_blob_hash(tmp_path / "file") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

    def test_what_is_no_file_is_not_intact(self, tmp_path):
        assert not is_intact(tmp_path, BLOB)
        assert not is_intact(tmp_path / "nowhere", BLOB)


class TestSuccess:
    def test_file_lands_at_the_target_and_nothing_else_does(self, server, target):
        assert download(server.url, target, BLOB) == target
        assert target.read_bytes() == CONTENT
        assert names_beside(target) == {"file.pth"}
        assert server.ranges == [None]

    def test_file_that_is_there_needs_no_request(self, server, target):
        for _ in range(2):
            download(server.url, target, BLOB)
        assert len(server.ranges) == 1

    def test_file_without_a_known_length_is_taken(self, server, target):
        server.is_chunked = True
        assert download(server.url, target, BLOB).read_bytes() == CONTENT

    @pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT[:-1] + b"x"], ids=["empty", "short", "other"])
    def test_damaged_file_is_fetched_anew(self, server, target, caplog, content):
        keep(target, content)
        with caplog.at_level(logging.WARNING):
            assert download(server.url, target, BLOB).read_bytes() == CONTENT
        assert f"{target} is damaged or another file" in caplog.text
        assert names_beside(target) == {"file.pth"}

    def test_file_may_lie_in_a_folder_instead_of_a_server(self, target, tmp_path):
        (tmp_path / "mirror.pth").write_bytes(CONTENT)
        assert download((tmp_path / "mirror.pth").as_uri(), target, BLOB).read_bytes() == CONTENT


class TestResume:
    @pytest.mark.parametrize("ending", ["end", "reset"])
    def test_broken_download_goes_on_where_it_stopped(self, server, target, part, ending):
        server.cuts, server.ending, server.part = [SIZE // 2], ending, part
        with pytest.raises(DownloadError, match=rf"^{server.url} broke off .* kept for the next try"):
            download(server.url, target, BLOB)
        assert names_beside(target) == {"file.pth.part"}
        kept = part.stat().st_size
        assert part.read_bytes() == CONTENT[:kept]
        assert ending == "reset" or kept == SIZE // 2
        assert download(server.url, target, BLOB).read_bytes() == CONTENT
        assert server.ranges == [None, f"bytes={kept}-"]
        assert names_beside(target) == {"file.pth"}

    def test_truncated_file_is_refused_with_both_sizes(self, server, target):
        server.cuts = [1000, 2000]
        with pytest.raises(DownloadError, match="broke off after 1000 of 262144 bytes"):
            download(server.url, target, BLOB)
        with pytest.raises(DownloadError, match="broke off after 3000 of 262144 bytes"):
            download(server.url, target, BLOB)
        assert not target.exists()

    def test_truncated_file_without_a_known_length_is_refused(self, server, target, part):
        server.is_chunked, server.cuts = True, [SIZE // 2]
        with pytest.raises(DownloadError, match="broke off"):
            download(server.url, target, BLOB)
        assert not target.exists()
        server.is_chunked = False
        assert download(server.url, target, BLOB).read_bytes() == CONTENT
        assert server.ranges == [None, f"bytes={SIZE // 2}-"]

    def test_stalled_download_is_given_up(self, server, target, part, monkeypatch):
        monkeypatch.setattr(module, "STALL_SECONDS", 0.3)
        server.cuts, server.ending = [1000], "stall"
        with pytest.raises(DownloadError, match=r"broke off \(timed out\)"):
            download(server.url, target, BLOB)
        assert part.read_bytes() == CONTENT[:1000]

    def test_address_that_has_moved_is_followed_with_the_range(self, server, target, part):
        keep(part, CONTENT[:1000])
        assert download(server.url.replace("/folder/", "/moved/"), target, BLOB).read_bytes() == CONTENT
        assert server.ranges == ["bytes=1000-"]

    def test_server_that_ignores_ranges_sends_everything_again(self, server, target, part):
        keep(part, CONTENT[:1000])
        server.knows_ranges = False
        assert download(server.url, target, BLOB).read_bytes() == CONTENT
        assert server.ranges == ["bytes=1000-"]

    def test_complete_part_is_moved_into_place(self, server, target, part):
        keep(part, CONTENT)
        assert download(server.url, target, BLOB).read_bytes() == CONTENT
        assert server.ranges == [f"bytes={SIZE}-"]
        assert names_beside(target) == {"file.pth"}

    @pytest.mark.parametrize("content", [b"x" * 1000, CONTENT + b"x"], ids=["other", "longer"])
    def test_part_of_another_file_is_dropped(self, server, target, part, content):
        keep(part, content)
        assert download(server.url, target, BLOB).read_bytes() == CONTENT
        assert server.ranges == [f"bytes={len(content)}-", None]
        assert names_beside(target) == {"file.pth"}


class TestRefusal:
    @pytest.mark.parametrize("kept", [b"", CONTENT[:1000]], ids=["fresh", "resumed"])
    def test_wrong_hash_is_refused_with_both_and_nothing_is_kept(self, server, target, part, kept):
        keep(part, kept)
        server.content = CONTENT[:-1] + b"x"
        found = hashlib.sha1(b"blob 262144\x00" + server.content).hexdigest()
        with pytest.raises(
            DownloadError, match=f"^{server.url} holds another file: expected git blob {BLOB}, found {found}"
        ):
            download(server.url, target, BLOB)
        assert not names_beside(target)
        assert len(server.ranges) == 1 + bool(kept)

    @pytest.mark.parametrize(
        ("status", "words"), [(403, "Forbidden"), (404, "Not Found"), (416, "Requested"), (500, "Internal Server")]
    )
    def test_what_a_refusing_server_says_is_passed_on(self, server, target, status, words):
        server.status = status
        with pytest.raises(DownloadError, match=rf"^{server.url} answers {status} {words}"):
            download(server.url, target, BLOB)
        assert not names_beside(target)

    def test_refusal_leaves_the_part_and_the_damaged_file(self, server, target, part):
        keep(part, CONTENT[:1000])
        target.write_bytes(b"damaged")
        server.status = 500
        with pytest.raises(DownloadError, match="answers 500"):
            download(server.url, target, BLOB)
        assert part.read_bytes() == CONTENT[:1000]
        assert target.read_bytes() == b"damaged"


class TestNoNetwork:
    def test_nobody_waits_ten_seconds(self):
        assert module.ANSWER_SECONDS < 10

    def test_closed_port_is_told_at_once(self, target):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(DownloadError, match=rf"no answer from http://127.0.0.1:{port}/a \(.*refused"):
            download(f"http://127.0.0.1:{port}/a", target, BLOB)
        assert time.monotonic() - start < 15
        assert not names_beside(target)

    def test_silent_server_is_given_up(self, server, target):
        server.delay = 20
        start = time.monotonic()
        with pytest.raises(DownloadError, match=f"^no answer from {server.url} within 0 s"):
            download(server.url, target, BLOB, answer_seconds=0.3)
        assert time.monotonic() - start < 15

    def test_name_that_nobody_looks_up_is_given_up(self, target, monkeypatch):
        answer = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **keywords: answer.wait(20) and [])
        with pytest.raises(DownloadError, match=r"no answer from http://hub\.invalid/a within"):
            download("http://hub.invalid/a", target, BLOB, answer_seconds=0.3)
        answer.set()

    def test_answer_that_comes_too_late_is_closed(self, target, monkeypatch):
        come, closed = threading.Event(), threading.Event()

        class Answer:
            def close(self):
                closed.set()

        monkeypatch.setattr(urllib.request, "urlopen", lambda *arguments, **keywords: come.wait(20) and Answer())
        with pytest.raises(DownloadError, match="no answer"):
            download("http://127.0.0.1/a", target, BLOB, answer_seconds=0.1)
        come.set()
        assert closed.wait(5)

    def test_error_that_comes_too_late_is_quiet(self, target, monkeypatch):
        come, crashes = threading.Event(), []
        monkeypatch.setattr(threading, "excepthook", crashes.append)
        before = set(threading.enumerate())

        def refuse(*arguments, **keywords):
            come.wait(20)
            raise OSError

        monkeypatch.setattr(urllib.request, "urlopen", refuse)
        with pytest.raises(DownloadError, match="no answer"):
            download("http://127.0.0.1/a", target, BLOB, answer_seconds=0.1)
        come.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(5)
        assert not crashes

    @pytest.mark.parametrize("url", ["server/file", "gopher://server/file", "http://[/file", "file:///nowhere/file"])
    def test_what_is_no_address_is_refused(self, target, url):
        with pytest.raises(DownloadError, match="no answer from"):
            download(url, target, BLOB)

    def test_server_of_another_kind_is_refused(self, target):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def greet():
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"220 mail.example ready\r\n")

            threading.Thread(target=greet, daemon=True).start()
            with pytest.raises(DownloadError, match=r"no answer from .* \(220 mail.example"):
                download(f"http://127.0.0.1:{listener.getsockname()[1]}/a", target, BLOB)


class TestUnwritable:
    @pytest.mark.parametrize("blocked", ["folder", "lock", "part", "target"])
    def test_file_goes_to_a_temporary_folder_with_a_warning(self, server, target, temporary_folder, caplog, blocked):
        # A folder in place of a file and the reverse, because the permissions of a folder do not stop root.
        if blocked == "folder":
            target.parent.write_text("no folder", encoding="utf-8")
        else:
            name = {"lock": ".file.pth.lock", "part": "file.pth.part", "target": "file.pth"}[blocked]
            (target.parent / name).mkdir(parents=True)
        with caplog.at_level(logging.WARNING):
            path = download(server.url, target, BLOB)
        assert temporary_folder in path.parents
        assert path.name == "file.pth"
        assert path.read_bytes() == CONTENT
        assert f"Cannot write {target} (" in caplog.text
        assert str(path) in caplog.text
        answered = len(server.ranges)
        assert download(server.url, target, BLOB) == path
        if blocked in {"folder", "lock"}:  # the others show only when the file has come
            assert len(server.ranges) == answered == 1

    def test_file_in_an_unwritable_cache_is_used(self, server, target):
        keep(target, CONTENT)
        target.with_name(".file.pth.lock").mkdir()
        assert download(server.url, target, BLOB) == target
        assert not server.ranges

    def test_a_full_disk_is_no_fault_of_the_network(self, server, target, part, monkeypatch, caplog):
        opened = Path.open

        def fail(path, mode="r", *arguments, **keywords):
            if path == part:
                raise OSError(28, "No space left on device", str(path))
            return opened(path, mode, *arguments, **keywords)

        monkeypatch.setattr(Path, "open", fail)
        with caplog.at_level(logging.WARNING):
            assert download(server.url, target, BLOB).read_bytes() == CONTENT
        assert "No space left on device" in caplog.text

    def test_no_folder_at_all_is_an_error(self, server, target, temporary_folder):
        for folder in (target.parent, temporary_folder):
            folder.write_text("no folder", encoding="utf-8")
        with pytest.raises(OSError, match="temporary"):
            download(server.url, target, BLOB)

    def test_temporary_folder_is_one_a_process_and_ends_with_it(self):
        code = load_module() + "print(download._temporary_folder(), download._temporary_folder(), sep='\\n')"
        answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        first, second = answer.stdout.split()
        assert first == second
        assert not Path(first).exists()


def load_module() -> str:
    """Code that loads the module by its path: the package would import anomalib, for ten seconds."""
    return (
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('download', {module.__file__!r})\n"
        "download = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(download)\n"
    )


def start(target: Path, url: str) -> subprocess.Popen:
    code = (
        load_module() + f"from pathlib import Path\nprint(download.download({url!r}, Path({str(target)!r}), {BLOB!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class TestTwoProcesses:
    def test_one_downloads_and_both_get_the_file(self, server, target):
        server.delay = 0.5
        processes = [start(target, server.url) for _ in range(2)]
        answers = [process.communicate(timeout=30) for process in processes]
        assert [answer[0].strip() for answer in answers] == [str(target)] * 2, answers
        assert target.read_bytes() == CONTENT
        assert server.ranges == [None]
        assert names_beside(target) == {"file.pth"}

    def test_second_goes_on_where_a_killed_one_stopped(self, server, target, part):
        server.cuts, server.ending = [SIZE // 2], "stall"
        first = start(target, server.url)
        wait_until(lambda: has_begun(part))
        second = start(target, server.url)
        first.kill()
        first.communicate(timeout=30)
        answer = second.communicate(timeout=30)
        assert answer[0].strip() == str(target), answer
        assert target.read_bytes() == CONTENT
        assert server.ranges[0] is None
        assert server.ranges[1].startswith("bytes=")
        assert len(server.ranges) == 2

    def test_waiting_has_an_end(self, server, target, monkeypatch):
        fcntl = pytest.importorskip("fcntl")
        monkeypatch.setattr(module, "LOCK_SECONDS", 0.2)
        target.parent.mkdir()
        with target.with_name(".file.pth.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(DownloadError, match=r"another process has held .*\.file\.pth\.lock for 0 s"):
                download(server.url, target, BLOB)
        assert not server.ranges
        assert download(server.url, target, BLOB) == target
