# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Small CLIP models for all tests: with the weights of the golden arrays, or random ones. No network, no download."""

import ctypes
import functools
import gc
import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from golden.weight_rule import golden_tensor
from huggingface_hub import constants
from open_clip.pretrained import get_pretrained_url
from safetensors.torch import save_file
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from anomalib_aprilgan.components import clip_source

# Before anything imports OpenVINO, here or in a child.
SILENT = str(Path(__file__).parent / "no_telemetry")
sys.path.insert(0, SILENT)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (SILENT, os.environ.get("PYTHONPATH"))))

# Of Python's audit events: look-ups of names, and what goes to an address; those of local sockets are no tuples.
LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname"}
TO_AN_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
HERE = {"localhost", "127.0.0.1", "::1", "", None}


def _stay_here(event: str, arguments: tuple) -> None:
    """Fail a test that asks for another machine; servers that tests start are on this one."""
    if event in LOOK_UPS:
        host = arguments[0]
    elif event in TO_AN_ADDRESS and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in HERE:
        pytest.fail(f"A test tried the network: {event} of {host!r}.")


sys.addaudithook(_stay_here)

GOLDEN = Path(__file__).parent / "golden"
# Settings under which the golden arrays were made; ``image_size`` and the layers lie in the arrays, too.
GOLDEN_SIZES = {"tiny_vit": 70, "tiny_vit_quickgelu": 70, "tiny_rn": 64}
GOLDEN_LAYERS = (1, 2, 3, 4)
GOLDEN_FEW_SHOT_LAYERS = {"tiny_vit": (2, 4), "tiny_vit_quickgelu": (2, 4), "tiny_rn": (1, 2, 3)}

# Small matrices: more threads only disturb the other worker of pytest-xdist.
torch.set_num_threads(1)

# The same examples everywhere: a red run can be repeated, and a slow machine is no failure.
hypothesis.settings.register_profile("anomalib_aprilgan", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("anomalib_aprilgan")


@pytest.fixture(scope="module", autouse=True)
def _garbage():
    """What is there before a file's tests stays: the collector, which trainers call, need not look at it again.

    What of it dies in a cycle is never freed; of modules and fixtures that is little.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _session_cache(tmp_path_factory: pytest.TempPathFactory):
    """What fixtures of the session keep must not land in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALIB_APRILGAN_CACHE", str(tmp_path_factory.mktemp("session_cache")))
        yield


@pytest.fixture(autouse=True)
def _seed():
    """Random inputs are the same in every run, whatever ran before."""
    torch.manual_seed(0)


class SignalStack(ctypes.Structure):
    """``stack_t`` of sigaltstack(2)."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.fixture(autouse=True)
def _signal_stack():
    """OpenVINO 2026.4 leaves the thread a signal stack in freed memory if several of its models have been compiled.

    Python's handlers run on it, so that the first signal in a later test would be a segmentation fault.
    """
    if sys.platform == "linux":
        disabled = 2  # SS_DISABLE
        assert ctypes.CDLL(None).sigaltstack(ctypes.byref(SignalStack(None, disabled, 0)), None) == 0


@pytest.fixture(autouse=True)
def _log_levels():
    """Commands silence libraries and this package; other tests may listen to them."""
    ours = ["anomalib_aprilgan", *(f"anomalib_aprilgan.{part}" for part in ("april_gan", "detection", "benchmark"))]
    libraries = ["anomalib", "lightning.pytorch", "lightning_fabric", "nncf", "torch.onnx"]
    loggers = [logging.getLogger(name) for name in (*ours, *libraries)]
    levels = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's cache of this test, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ANOMALIB_APRILGAN_CACHE", str(folder))
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without network; a test that asks for it, in whatever thread, fails."""
    asked = []

    def refuse(*arguments, **keywords):
        asked.append(arguments)
        msg = "There is no network here."
        raise OSError(msg)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for place, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
        monkeypatch.setattr(place, name, refuse)
    yield
    assert not asked


@pytest.fixture
def watch_streams() -> Callable[[nn.Module], list[int]]:
    """Counts for every block of a ViT, as it begins, how many inputs of earlier blocks are still held."""

    def watch(visual: nn.Module) -> list[int]:
        earlier: list[StorageWeakRef] = []
        held: list[int] = []

        def look(_norm, inputs):
            held.append(sum(not storage.expired() for storage in earlier))
            earlier.append(StorageWeakRef(inputs[0].untyped_storage()))

        for block in visual.transformer.resblocks:
            block.ln_1.register_forward_pre_hook(look)
        return held

    return watch


@pytest.fixture
def weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Path]:
    """A file that counts as OpenAI's ViT-L-14-336, by its digest, or as somebody else's."""

    def write(is_openais: bool) -> Path:
        path = tmp_path / "renamed.pt"
        path.touch()
        digest = get_pretrained_url("ViT-L-14-336", "openai").split("/")[-2]
        monkeypatch.setattr(clip_source, "file_digest", lambda _: digest if is_openais else "0" * 64)
        return path

    return write


@pytest.fixture(scope="module")
def traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """ONNX's exporter, which takes seconds, traces a model for the same input only once, until the module's end.

    Exports to OpenVINO begin with it, compressed or not.
    """
    plain, graphs = torch.onnx.export, {}

    def export(*, model: nn.Module, args: tuple[torch.Tensor], f: str, **options: Any) -> None:
        path = Path(f)
        state = model.state_dict(keep_vars=True).values()
        # Tensors that change, by themselves or for others, make another graph.
        key = (model, *((tensor, tensor._version) for tensor in state), args[0].shape, repr(options), path.name)
        if key not in graphs:
            plain(model=model, args=args, f=f, **options)
            graphs[key] = tmp_path_factory.mktemp("graph")
            source, target = path.parent, graphs[key]
        else:
            source, target = graphs[key], path.parent
        for file in source.glob(f"{path.name}*"):  # weights lie in a file of their own
            shutil.copy(file, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export)
        yield


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of the arrays that the authors' code gave, and of the configs."""
    return GOLDEN


@pytest.fixture(scope="session")
def golden_arrays() -> Callable[[str], dict[str, np.ndarray]]:
    """Arrays of a golden file by name, such as ``golden_arrays("tiny_vit")["pooled"]``."""

    @functools.cache
    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def golden_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Factory of weights files for ``tiny_vit``, ``tiny_vit_quickgelu`` and ``tiny_rn``."""
    folder = tmp_path_factory.mktemp("golden_weights")

    @functools.cache
    def write(name: str) -> Path:
        from open_clip.model import CLIP  # some seconds, which tests without a model need not wait

        config = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
        with torch.device("meta"):
            expected = CLIP(**config).state_dict()
        tensors = {
            key: torch.from_numpy(np.asarray(golden_tensor(key, tensor.shape)))
            for key, tensor in expected.items()
            if tensor.is_floating_point()
        }
        save_file(tensors, folder / f"{name}.safetensors")
        return folder / f"{name}.safetensors"

    return write


@pytest.fixture(scope="session")
def golden_adapters(
    golden_arrays: Callable[[str], dict[str, np.ndarray]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Factory of adapter files: ``golden_adapters(name)``, or with the suffix ``.pth`` as the authors write them."""
    folder = tmp_path_factory.mktemp("golden_adapters")

    @functools.cache
    def write(name: str, suffix: str = ".safetensors") -> Path:
        arrays = golden_arrays(name)
        prefix = "adapter."
        weights = {key.removeprefix(prefix): torch.from_numpy(arrays[key]) for key in arrays if key.startswith(prefix)}
        path = folder / f"{name}{suffix}"
        if suffix == ".pth":
            torch.save({"trainable_linearlayer": weights}, path)
        else:
            metadata = {"backbone": name, "layers": GOLDEN_LAYERS, "image_size": GOLDEN_SIZES[name]}
            save_file(weights, path, metadata={key: json.dumps(value) for key, value in metadata.items()})
        return path

    return write


@pytest.fixture(scope="session")
def golden_arguments(
    golden_weights: Callable[[str], Path],
    golden_adapters: Callable[..., Path],
) -> Callable[[str], dict[str, Any]]:
    """Factory of a model's arguments under which it must agree with the golden arrays of that name."""

    def build(name: str) -> dict[str, Any]:
        return {
            "backbone": str(GOLDEN / f"{name}.json"),
            "pretrained": str(golden_weights(name)),
            "image_size": GOLDEN_SIZES[name],
            "layers": list(GOLDEN_LAYERS),
            "few_shot_layers": list(GOLDEN_FEW_SHOT_LAYERS[name]),
            "adapters": str(golden_adapters(name)),
        }

    return build


@pytest.fixture(scope="session")
def tiny_backbone() -> str:
    """Config of a ViT with 4 blocks of width 64, patches of 14 pixels and 32 text dimensions."""
    return str(GOLDEN / "tiny_vit.json")


@pytest.fixture
def tiny_arguments(tiny_backbone: str) -> dict[str, Any]:
    """Arguments of a model with random weights: 4 x 4 patches, no file but its config."""
    return {"backbone": tiny_backbone, "pretrained": None, "image_size": 56, "layers": [1, 2, 3, 4]}


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., Any]:
    """Factory of quiet engines of anomalib on one CPU, for one epoch unless arguments say otherwise."""
    from anomalib.engine import Engine  # some seconds, which tests without an engine need not wait

    def build(max_epochs: int = 1, **arguments: Any) -> Engine:
        return Engine(
            default_root_dir=tmp_path / "results",
            accelerator="cpu",
            devices=1,
            max_epochs=max_epochs,
            enable_progress_bar=False,
            enable_model_summary=False,
            **arguments,
        )

    return build
