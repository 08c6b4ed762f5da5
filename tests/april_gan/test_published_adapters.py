# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The published adapters by name: from a mirror on this machine, with the metadata of the paper, or with remedies."""

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anomalib.data
import pytest
import torch
from anomalib.data import AnomalibDataModule
from torch import nn

from anomalib_aprilgan.april_gan.adapters import PUBLISHED, read_adapters
from anomalib_aprilgan.april_gan.published_adapters import (
    MIRROR_VARIABLE,
    PUBLISHED_FILES,
    choose_for,
    published_for,
    trained_on_same,
)
from anomalib_aprilgan.components import published_files
from anomalib_aprilgan.components.download import DownloadError, git_blob_hash
from anomalib_aprilgan.components.offline import HUB_OFFLINE_VARIABLE, OFFLINE_VARIABLE
from anomalib_aprilgan.components.published_files import (
    PublishedFileNotFoundError,
)

METADATA = PUBLISHED[PUBLISHED_FILES["mvtec"].blob]


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        self.server.requests.append(self.path)


class Mirror(ThreadingHTTPServer):
    """A folder on the web; ``requests`` holds the paths that were asked for, and how each request went."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.requests: list[str] = []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files in place of the authors'; the registry and ``read_adapters`` know them."""
    folder = tmp_path / "mirror" / "adapters"
    folder.mkdir(parents=True)
    for number, (name, entry) in enumerate(list(PUBLISHED_FILES.items())):
        metadata = PUBLISHED[entry.blob]
        maps = nn.ModuleList(nn.Linear(2, 1 + number) for _ in metadata.layers)
        weights = {f"fc.{key}": tensor for key, tensor in maps.state_dict().items()}
        torch.save({"trainable_linearlayer": weights}, folder / entry.path)
        blob = git_blob_hash(folder / entry.path)
        monkeypatch.setitem(PUBLISHED_FILES, name, replace(entry, blob=blob))
        monkeypatch.setitem(PUBLISHED, blob, metadata)
    return folder


@pytest.fixture(autouse=True)
def _network_is_allowed(monkeypatch: pytest.MonkeyPatch):
    for variable in (OFFLINE_VARIABLE, HUB_OFFLINE_VARIABLE, MIRROR_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def mirror(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with Mirror(folder.parent) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv(MIRROR_VARIABLE, f"http://127.0.0.1:{server.server_port}/adapters")
        yield server
        server.shutdown()


@pytest.fixture
def no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_files, "download", lambda *arguments: pytest.fail("asked for the network"))


class TestRegistry:
    def test_files_are_those_of_the_authors(self):
        files = {name: (file.path, file.blob) for name, file in PUBLISHED_FILES.items()}
        assert files == {
            "mvtec": ("mvtec_pretrained.pth", "a057cec6c2ba5996baa0160a51e155908156813f"),
            "visa": ("visa_pretrained.pth", "86d6848c543f8393663d35c0333498ffb5ce9b68"),
        }

    def test_metadata_are_those_that_the_reader_knows(self):
        for name, file in PUBLISHED_FILES.items():
            assert PUBLISHED[file.blob].trained_on == name

    @pytest.mark.parametrize(
        ("backbone", "pretrained", "expected"),
        [
            ("ViT-L-14-336", "openai", True),
            ("ViT-L/14-336", "OpenAI", True),
            ("ViT-L-14-336-quickgelu", "hf-hub:timm/vit_large_patch14_clip_336.openai", True),
            ("ViT-L-14", "openai", False),
            ("ViT-L-14-336", None, False),
        ],
    )
    def test_belong_to_one_clip_in_any_spelling(self, backbone, pretrained, expected):
        assert (published_for(backbone, pretrained, [6, 12, 18, 24]) is not None) is expected


class TestFetching:
    def test_file_lands_in_the_cache_with_the_papers_metadata(self, mirror, cache_folder):
        path = PUBLISHED_FILES["mvtec"].fetch()
        assert path == cache_folder / "adapters" / "mvtec_pretrained.pth"
        file = read_adapters(path)
        assert file.metadata == METADATA
        assert file.metadata.quick_gelu is False
        assert file.build([6, 12, 18, 24], [2, 2, 2, 2], 1).is_loaded

    def test_each_name_has_its_file(self, mirror):
        read = {name: read_adapters(PUBLISHED_FILES[name].fetch()) for name in ("mvtec", "visa")}
        assert {name: file.metadata.trained_on for name, file in read.items()} == {"mvtec": "mvtec", "visa": "visa"}
        assert [len(file.weights["fc.0.bias"]) for file in read.values()] == [1, 2]

    def test_file_that_is_there_needs_no_request(self, mirror):
        path = PUBLISHED_FILES["visa"].fetch()
        assert mirror.requests == ["/adapters/visa_pretrained.pth"]
        assert PUBLISHED_FILES["visa"].fetch() == PUBLISHED_FILES["visa"].find() == path
        assert len(mirror.requests) == 1

    def test_looking_into_the_cache_uses_no_network(self, mirror, cache_folder):
        assert PUBLISHED_FILES["mvtec"].find() is None
        assert not mirror.requests
        assert not list(cache_folder.iterdir())

    def test_damaged_file_is_fetched_anew(self, mirror):
        path = PUBLISHED_FILES["mvtec"].fetch()
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        assert PUBLISHED_FILES["mvtec"].find() is None
        assert PUBLISHED_FILES["mvtec"].fetch().read_bytes() == content
        assert len(mirror.requests) == 2

    def test_other_file_on_the_mirror_is_refused(self, mirror, folder, cache_folder):
        (folder / "mvtec_pretrained.pth").write_bytes(b"<html>Please log in</html>")
        blob = PUBLISHED_FILES["mvtec"].blob
        with pytest.raises(
            PublishedFileNotFoundError, match=rf"holds another file: expected git blob {blob}, found \w{{40}}"
        ):
            PUBLISHED_FILES["mvtec"].fetch()
        assert not list(cache_folder.glob("**/mvtec*"))

    def test_cache_that_cannot_be_written_gives_way_to_a_temporary_folder(self, mirror, tmp_path, monkeypatch, caplog):
        (tmp_path / "file").touch()
        monkeypatch.setenv("ANOMALIB_APRILGAN_CACHE", str(tmp_path / "file"))
        path = PUBLISHED_FILES["visa"].fetch()
        assert read_adapters(path).metadata.trained_on == "visa"
        assert f"Cannot write {tmp_path / 'file'}" in caplog.text


class TestAddress:
    def asked(self, monkeypatch) -> str:
        asked = []

        def download(url, target, blob):
            asked.append(url)
            msg = "nobody there"
            raise DownloadError(msg)

        monkeypatch.setattr(published_files, "download", download)
        with pytest.raises(PublishedFileNotFoundError, match="nobody there"):
            PUBLISHED_FILES["visa"].fetch()
        return asked[0]

    @pytest.mark.parametrize("mirror", [None, "", " "])
    def test_authors_repository_is_asked_at_the_papers_commit(self, monkeypatch, mirror):
        if mirror is not None:
            monkeypatch.setenv(MIRROR_VARIABLE, mirror)
        assert self.asked(monkeypatch) == (
            "https://github.com/ByChelsea/VAND-APRIL-GAN/raw/f13b8a6/exps/pretrained/visa_pretrained.pth"
        )

    @pytest.mark.parametrize("mirror", ["https://mirror/a", "https://mirror/a/", " https://mirror/a "])
    def test_mirror_is_asked_instead(self, monkeypatch, mirror):
        monkeypatch.setenv(MIRROR_VARIABLE, mirror)
        assert self.asked(monkeypatch) == "https://mirror/a/visa_pretrained.pth"

    def test_mirror_may_be_a_folder(self, folder, monkeypatch):
        monkeypatch.setenv(MIRROR_VARIABLE, folder.as_uri())
        assert read_adapters(PUBLISHED_FILES["mvtec"].fetch()).metadata == METADATA


class TestNoNetwork:
    @pytest.mark.parametrize("variable", [OFFLINE_VARIABLE, HUB_OFFLINE_VARIABLE])
    @pytest.mark.parametrize("value", ["1", "true", "Yes", "ON", " 1 "])
    def test_offline_nobody_is_asked(self, no_request, monkeypatch, variable, value):
        monkeypatch.setenv(variable, value)
        with pytest.raises(PublishedFileNotFoundError, match=f"cannot be downloaded: {variable} forbids the network"):
            PUBLISHED_FILES["mvtec"].fetch()

    @pytest.mark.parametrize("value", ["0", "false", "no", ""])
    def test_other_values_allow_the_network(self, mirror, monkeypatch, value):
        monkeypatch.setenv(OFFLINE_VARIABLE, value)
        monkeypatch.setenv(HUB_OFFLINE_VARIABLE, value)
        assert PUBLISHED_FILES["mvtec"].fetch().is_file()

    def test_offline_the_cache_serves(self, mirror, monkeypatch):
        path = PUBLISHED_FILES["mvtec"].fetch()
        monkeypatch.setenv(OFFLINE_VARIABLE, "1")
        assert PUBLISHED_FILES["mvtec"].fetch() == path

    def test_unreachable_server_is_told_with_all_remedies(self, cache_folder, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv(MIRROR_VARIABLE, url)
        message = rf"no answer from {url}/mvtec_pretrained.pth \(.*\)"
        with pytest.raises(PublishedFileNotFoundError, match=message) as caught:
            PUBLISHED_FILES["mvtec"].fetch()
        for remedy in (
            "Adapters 'mvtec' (mvtec_pretrained.pth, git blob a057cec6c2ba",
            "https://github.com/ByChelsea/VAND-APRIL-GAN/raw/f13b8a6/exps/pretrained/mvtec_pretrained.pth",
            str(cache_folder / "adapters" / "mvtec_pretrained.pth"),
            "adapters=PATH",
            MIRROR_VARIABLE,
            OFFLINE_VARIABLE,
            HUB_OFFLINE_VARIABLE,
        ):
            assert remedy in str(caught.value)

    def test_file_that_the_mirror_lacks_is_told(self, mirror, folder):
        (folder / "visa_pretrained.pth").unlink()
        with pytest.raises(PublishedFileNotFoundError, match=r"adapters/visa_pretrained.pth answers 404"):
            PUBLISHED_FILES["visa"].fetch()

    def test_file_that_the_user_copied_is_taken(self, folder, cache_folder, no_request):
        (cache_folder / "adapters").mkdir()
        copied = (folder / "visa_pretrained.pth").rename(cache_folder / "adapters" / "visa_pretrained.pth")
        assert PUBLISHED_FILES["visa"].fetch() == copied


class TestDatasets:
    @pytest.mark.parametrize("dataset", ["Visa", "visa", "VisA", "Visa/candle"])
    def test_visa_is_tested_with_the_adapters_of_mvtec(self, dataset):
        assert choose_for(dataset) == "mvtec"

    @pytest.mark.parametrize("dataset", ["MVTecAD", "mvtec", "MVTecAD/visa", "MVTecAD2", "Folder", "BTech", ""])
    def test_everything_else_is_tested_with_the_adapters_of_visa(self, dataset):
        assert choose_for(dataset) == "visa"

    def test_one_category_of_visa_among_others_is_enough(self):
        assert choose_for("BTech/01", "Visa/pcb1") == "mvtec"
        assert choose_for() == "visa"

    def test_no_datamodule_of_anomalib_gets_adapters_that_have_seen_it(self):
        found = [getattr(anomalib.data, name) for name in anomalib.data.__all__]
        names = [cls.__name__ for cls in found if isinstance(cls, type) and issubclass(cls, AnomalibDataModule)]
        assert {"Visa", "MVTecAD"} <= set(names)
        for name in names:
            assert not trained_on_same(choose_for(name), name)

    @pytest.mark.parametrize(
        ("trained_on", "dataset"),
        [
            ("mvtec", "MVTecAD"),
            ("mvtec", "mvtec"),
            ("MVTecAD", "MVTecAD"),
            ("visa", "Visa"),
            ("VisA", "Visa"),
            ("mvtec, visa", "Visa"),
            ("visa: candle", "Visa"),
            ("BTech", "BTech"),
            ("mvtec", "MVTecAD/bottle"),
            ("MVTecAD/bottle", "MVTecAD"),
            ("MVTecAD/cable, MVTecAD/bottle", "MVTecAD/bottle"),
            ("Visa/Candle", "visa/candle"),
            ("MVTecAD/metal nut", "MVTecAD/metal nut"),
            ("Folder/bolt", "Folder/bolt"),
        ],
    )
    def test_adapters_that_have_seen_the_dataset_are_known(self, trained_on, dataset):
        assert trained_on_same(trained_on, dataset)

    @pytest.mark.parametrize(
        ("trained_on", "dataset"),
        [
            ("mvtec", "Visa"),
            ("visa", "MVTecAD"),
            ("mvtec", "MVTecAD2"),
            ("mvtec", "MVTecLOCO"),
            ("mvtec", "Folder"),
            ("Folder", "Folder"),
            (None, "Visa"),
            ("", "Visa"),
            ("visage", "Visa"),
            ("visa", ""),
            ("MVTecAD/bottle, MVTecAD/cable", "MVTecAD/carpet"),
            ("Visa/bottle", "MVTecAD/bottle"),
            ("MVTecAD/visa", "Visa/candle"),
            ("Folder/bolt", "Folder/nut"),
            ("Folder/bolt", "Folder"),
            ("Folder", "Folder/bolt"),
        ],
    )
    def test_others_are_not(self, trained_on, dataset):
        assert not trained_on_same(trained_on, dataset)


def test_every_word_of_the_message_is_for_the_reader(no_request, monkeypatch):
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    with pytest.raises(PublishedFileNotFoundError, match=r"^Adapters 'visa' \(.*may be used\.$") as caught:
        PUBLISHED_FILES["visa"].fetch()
    assert not re.search(r"None|\{|\}|  ", str(caught.value))
