# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Where weights are looked for, which files are read and which are refused, and what a file's digest costs."""

import hashlib
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from open_clip import version as open_clip_version
from open_clip.pretrained import get_pretrained_cfg, list_pretrained
from safetensors import safe_open
from safetensors.torch import save_file

from anomalib_aprilgan.components import weights
from anomalib_aprilgan.components.clip_config import load_config
from anomalib_aprilgan.components.hub import CHECKPOINT_NAMES, WeightsNotFoundError
from anomalib_aprilgan.components.pretrained_tags import HUB_REPOSITORIES
from anomalib_aprilgan.components.weights import HubFile, fetch, file_digest, find_local, load_tensors, locate, tag_key

# torch is about to give TorchScript up, and wonders about other tools' pickles.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:Detected pickle protocol")

STATE = {
    "visual.proj": torch.arange(6.0).reshape(2, 3),
    "text_projection": torch.tensor([0.5, -2.0]).half(),
    "visual.bn1.num_batches_tracked": torch.tensor(7),
}
# The release whose registry the tables repeat in part.
HAS_REPOSITORIES = open_clip_version.__version__.startswith("3.3.")


def everything(name: str) -> bool:
    return True


class TinyCLIP(torch.nn.Module):
    """As OpenAI traced its models: weights in half precision, and three integers of settings among them."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = torch.nn.Linear(3, 2, bias=False).half()
        self.register_buffer("text_projection", torch.tensor([0.5, -2.0]).half())
        for setting in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(setting, torch.tensor(224))

    def forward(self, image):
        return self.visual(image)


def write_torchscript(path: Path) -> None:
    model = TinyCLIP()
    model.visual.weight.data = STATE["visual.proj"].half()
    torch.jit.script(model).save(path)


def write_legacy(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


# Every way in which CLIP's weights are published or saved, under a suffix that is usual for it.
WRITERS: dict[str, Callable[[Path], None]] = {
    "safetensors": lambda path: save_file(STATE, path),
    "bin": lambda path: torch.save(STATE, path),
    "pt": write_legacy,
    "pth": write_torchscript,
}


@pytest.fixture(params=WRITERS)
def intact(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A good file of one of the formats."""
    path = tmp_path / f"weights.{request.param}"
    WRITERS[request.param](path)
    return path


def assert_same(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == (torch.float32 if expected[name].is_floating_point() else expected[name].dtype)
        assert torch.equal(tensor, expected[name].to(tensor.dtype))


@pytest.mark.parametrize("kind", ["safetensors", "bin", "pt"])
def test_state_dicts_are_read_in_single_precision(kind, tmp_path):
    path = tmp_path / f"weights.{kind}"
    WRITERS[kind](path)
    assert_same(load_tensors(path, everything), STATE)


def test_torchscript_is_read_without_its_settings(tmp_path):
    write_torchscript(tmp_path / "weights.pt")
    tensors = load_tensors(tmp_path / "weights.pt", everything)
    assert_same(tensors, {"visual.weight": STATE["visual.proj"], "text_projection": STATE["text_projection"]})


def test_training_checkpoints_are_unwrapped(tmp_path):
    state = {f"module.{name}": tensor for name, tensor in STATE.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"lr": 0.1}}, tmp_path / "epoch_3.pt")
    assert_same(load_tensors(tmp_path / "epoch_3.pt", everything), STATE)


def test_only_wanted_tensors_are_handed_out(intact):
    assert load_tensors(intact, lambda name: name.startswith("text_")).keys() == {"text_projection"}
    assert not load_tensors(intact, lambda name: False)


def test_unwanted_tensors_are_not_even_read(tmp_path, monkeypatch):
    read = []

    class RecordingFile:
        def __init__(self, *arguments, **keywords):
            self.file = safe_open(*arguments, **keywords)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def keys(self):
            return self.file.keys()

        def get_tensor(self, name):
            read.append(name)
            return self.file.get_tensor(name)

    save_file(STATE, tmp_path / "weights.safetensors")
    monkeypatch.setattr(weights, "safe_open", RecordingFile)
    load_tensors(tmp_path / "weights.safetensors", lambda name: name.startswith("text_"))
    assert read == ["text_projection"]


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dump", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_pickled_objects_are_refused_and_not_run(dump, tmp_path):
    dump({"visual.proj": torch.ones(2), "bomb": Bomb(tmp_path / "exploded")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt holds more than tensors.*safetensors"):
        load_tensors(tmp_path / "evil.pt", everything)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [{"epoch": 3, "model": {}}, [torch.ones(2)], torch.ones(2), {1: torch.ones(2)}])
def test_files_that_hold_no_state_dict_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt cannot be read as weights"):
        load_tensors(tmp_path / "odd.pt", everything)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "bin"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><title>404</title>", bytes(range(256)), b"PK\x05\x06"])
def test_files_that_are_no_weights_are_refused(content, suffix, tmp_path):
    path = tmp_path / f"page.{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"page\.{suffix} (cannot be read as weights|holds more than tensors).* again"
    ):
        load_tensors(path, everything)


def test_a_zip_of_other_things_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.pt", "w") as archive:
        archive.writestr("photos/1.png", b"")
    with pytest.raises(ValueError, match=r"photos\.pt cannot be read as weights"):
        load_tensors(tmp_path / "photos.pt", everything)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_half_files_are_refused(intact, part):
    content = intact.read_bytes()
    intact.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=rf"{intact.name} (cannot be read as weights|holds more than tensors)"):
        load_tensors(intact, everything)


def test_damaged_files_never_fail_in_another_way(intact):
    content, chance = intact.read_bytes(), random.Random(0)
    messages = []
    for _ in range(40):
        damaged = bytearray(content)
        for _ in range(5):
            damaged[chance.randrange(len(content))] = chance.randrange(256)
        intact.write_bytes(damaged)
        try:
            load_tensors(intact, everything)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(intact.name in message for message in messages)


def test_a_file_that_is_gone_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.(safetensors|pt)"):
        load_tensors(tmp_path / "gone.safetensors", everything)
    with pytest.raises(FileNotFoundError, match=r"gone\.pt"):
        load_tensors(tmp_path / "gone.pt", everything)


def test_paths_are_taken_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "own.pt").touch()
    assert locate("ViT-B-16", str(tmp_path / "own.pt")) == tmp_path / "own.pt"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    location = locate("ViT-B-16", "~/own.pt")
    assert location == fetch(location) == find_local(location) == tmp_path / "own.pt"


@pytest.mark.parametrize("pretrained", ["gone.safetensors", "folder/gone", "/gone/openai", "."])
def test_missing_paths_are_refused(pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsNotFoundError, match=rf"pretrained='{pretrained}' is not a file.*\.safetensors"):
        locate("ViT-B-16", pretrained)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"is not a file"):
        locate("ViT-B-16", str(tmp_path))


def test_a_folder_does_not_hide_the_tag_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "openai").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("ViT-B-16", "openai") == HubFile("timm/vit_base_patch16_clip_224.openai")


def test_a_hub_repository_is_taken_as_it_is():
    assert locate("ViT-B-16", "hf-hub:me/own-clip") == HubFile("me/own-clip", CHECKPOINT_NAMES)


@pytest.mark.parametrize(
    ("backbone", "tag", "repository"),
    [
        # By a plain URL only in 2.24.0.
        ("ViT-L-14-336", "openai", "timm/vit_large_patch14_clip_336.openai"),
        ("RN50", "cc12m", "timm/resnet50_clip.cc12m"),
        ("ViT-B-16-plus-240", "laion400m_e31", "timm/vit_base_patch16_plus_clip_240.laion400m_e31"),
        ("ViT-B-32-quickgelu", "metaclip_fullcc", "timm/vit_base_patch32_clip_224.metaclip_2pt5b"),
        # By its repository in every release.
        ("ViT-B-16", "laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
        # As open_clip, without regard to case and hyphens.
        ("ViT-B-16", "LAION400M-E32", "timm/vit_base_patch16_clip_224.laion400m_e32"),
    ],
)
def test_tags_lead_to_repositories(backbone, tag, repository):
    assert locate(backbone, tag) == HubFile(repository)


def test_a_repository_may_name_its_file(monkeypatch):
    monkeypatch.setattr(weights, "get_pretrained_cfg", lambda backbone, tag: {"hf_hub": "org/clip/own.bin"})
    assert locate("ViT-B-16", "own") == HubFile("org/clip", ("own.bin",))


def test_a_tag_without_a_repository_names_its_address(monkeypatch):
    monkeypatch.setattr(
        weights, "get_pretrained_cfg", lambda backbone, tag: {"url": "https://there/a.pt", "hf_hub": ""}
    )
    with pytest.raises(ValueError, match=r"pretrained='other' has no repository.*https://there/a\.pt.*pretrained=PATH"):
        locate("ViT-B-16", "other")


def test_unknown_tags_name_the_known_ones():
    with pytest.raises(
        ValueError, match=r"'opanai' is not a tag of backbone 'RN50x4'; open_clip knows openai\. .*hf-hub:"
    ):
        locate("RN50x4", "opanai")
    with pytest.raises(ValueError, match=r"backbone 'own'; open_clip knows none"):
        locate("own", "openai")


def test_every_tag_of_a_supported_backbone_has_a_repository():
    backbones = {backbone for backbone, _ in list_pretrained()}
    supported = set()
    for backbone in backbones:
        try:
            load_config(backbone)
        except ValueError:
            continue
        supported.add(backbone)
    # Weights that 2.24.0 knows by their URL, and that nobody has put into a repository.
    nowhere = set() if HAS_REPOSITORIES else {("ViT-B-16-plus-240", "laion400m_e32")}
    tags = [(backbone, tag) for backbone, tag in list_pretrained() if backbone in supported]
    assert len(tags) > 70
    for backbone, tag in set(tags) - nowhere:
        location = locate(backbone, tag)
        assert isinstance(location, HubFile)
        assert location.repo_id.count("/") == 1


@pytest.mark.skipif(not HAS_REPOSITORIES, reason="needs open_clip_torch 3.3, from which the table is taken")
def test_the_table_says_what_open_clip_says():
    for key, repository in HUB_REPOSITORIES.items():
        assert get_pretrained_cfg(*key.split(":"))["hf_hub"].rstrip("/") == repository


def test_keys_of_the_tables():
    assert tag_key("ViT-B-32-quickgelu", "LAION400M-E32") == "ViT-B-32:laion400m_e32"
    architectures = {key.split(":")[0] for key in HUB_REPOSITORIES}
    assert architectures <= set(open_clip.list_models())


def test_the_hubs_cache_is_looked_up_without_network(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    location = HubFile("org/clip")
    assert find_local(location) is None
    repository = tmp_path / "models--org--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in reversed(CHECKPOINT_NAMES):
        (snapshot / name).touch()
        assert find_local(location) == fetch(location) == snapshot / name


def test_a_digest_is_sha256(tmp_path):
    content = os.urandom((1 << 20) + 1)
    (tmp_path / "a.pt").write_bytes(content)
    assert file_digest(tmp_path / "a.pt") == hashlib.sha256(content).hexdigest()


def test_a_digest_is_computed_once(tmp_path, cache_folder):
    path = tmp_path / "a.pt"
    path.write_bytes(b"one")
    first = file_digest(path)
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_digest(path) == first
    shutil.rmtree(cache_folder)
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize(("content", "later"), [(b"two", 1), (b"longer", 0)], ids=["time", "size"])
def test_a_changed_file_has_a_new_digest(content, later, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"one")
    file_digest(path)
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + later))
    assert file_digest(path) == hashlib.sha256(content).hexdigest()


def test_links_share_a_digest(tmp_path, cache_folder):
    (tmp_path / "a.pt").write_bytes(b"one")
    (tmp_path / "link.pt").symlink_to(tmp_path / "a.pt")
    assert file_digest(tmp_path / "link.pt") == file_digest(tmp_path / "a.pt")
    assert len(list((cache_folder / "digests").iterdir())) == 1


@pytest.mark.parametrize("memo", [b"", b"abc", b"\xff" * 64])
def test_a_damaged_memo_is_not_believed(memo, tmp_path, cache_folder):
    (tmp_path / "a.pt").write_bytes(b"one")
    file_digest(tmp_path / "a.pt")
    (entry,) = (cache_folder / "digests").iterdir()
    entry.write_bytes(memo)
    assert file_digest(tmp_path / "a.pt") == hashlib.sha256(b"one").hexdigest() == entry.read_text()


def test_without_a_writable_cache_digests_are_right_all_the_same(tmp_path, monkeypatch, caplog):
    (tmp_path / "a.pt").write_bytes(b"one")
    monkeypatch.setenv("ANOMALIB_APRILGAN_CACHE", str(tmp_path / "a.pt" / "cache"))
    assert file_digest(tmp_path / "a.pt") == hashlib.sha256(b"one").hexdigest()
    assert "going on without this cache entry" in caplog.text


def test_the_hubs_blob_names_are_believed(tmp_path, cache_folder):
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"one")
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert file_digest(tmp_path / "model.safetensors") == "ab" * 32
    assert not any(cache_folder.iterdir())
    # Small files of the hub are named by git's SHA-1, which is another digest.
    small = blob.rename(blob.parent / ("ab" * 20))
    assert file_digest(small) == hashlib.sha256(b"one").hexdigest()
