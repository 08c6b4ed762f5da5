# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-aprilgan doctor``: healthy and ill installations, each as far as the doctor sees it. No network."""

import hashlib
import inspect
import shutil
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import anomalib.models
import pytest
from huggingface_hub import constants

from anomalib_aprilgan import AnomalyCLIP, AprilGAN, cli, doctor, host
from anomalib_aprilgan.anomaly_clip.learned_prompts import LearnedPrompts
from anomalib_aprilgan.cli import main
from anomalib_aprilgan.components import weights
from anomalib_aprilgan.components.trained_file import TrainedWith
from anomalib_aprilgan.doctor import examine, judge_winclip
from anomalib_aprilgan.findings import Finding, Settings, is_well, render

GROUP = "anomalib.models"
OWN = EntryPoint("aprilgan", "anomalib_aprilgan:AprilGAN", GROUP)


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An environment in which the package is installed well, or as the test sets it."""
    hook = sys.modules[host.install.__module__]
    environment = SimpleNamespace(plugins=[OWN], missing=set(), finder=hook.PluginFinder())

    def version_there(name: str) -> str:
        if name in environment.missing:
            raise PackageNotFoundError(name)
        return "0.1.0" if name == "anomalib-aprilgan" else version(name)

    monkeypatch.setattr(doctor, "version", version_there)
    monkeypatch.setattr(doctor, "entry_points", lambda group: environment.plugins)
    monkeypatch.setattr(doctor, "find_spec", lambda name: ModuleSpec(name, None, origin=f"/site-packages/{name}.py"))
    # Where the package is really installed, its own finder is there, too.
    others = [finder for finder in sys.meta_path if not hasattr(finder, "plugin_group")]
    monkeypatch.setattr(sys, "meta_path", [*others, environment.finder])
    return environment


@pytest.fixture
def tiny(golden_arguments) -> Settings:
    """A small model with weights and adapters from files."""
    names = ("backbone", "pretrained", "adapters", "image_size", "layers")
    return Settings(**{name: golden_arguments("tiny_vit")[name] for name in names})


def command(settings: Settings) -> list[str]:
    return ["doctor", *(f"--{name}={value}" for name, value in vars(settings).items())]


def change(settings: Settings, **changes: object) -> Settings:
    return Settings(**{**vars(settings), **changes})


def find(settings: Settings, subject: str) -> Finding:
    (finding,) = (finding for finding in examine(settings) if finding.subject == subject)
    return finding


def test_version(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"anomalib-aprilgan {version('anomalib-aprilgan')}\n"


def test_a_healthy_installation(tiny, capsys):
    assert main(command(tiny)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("[ok] offline prediction")
    assert not any("[!!]" in line for line in lines)
    words = [line.split() for line in lines]
    for name in ("anomalib", "torch", "torchvision", "lightning", "open_clip_torch", "huggingface_hub"):
        assert ["[ok]", name, version(name)] in words
    assert ["[ok]", "anomalib-aprilgan", "0.1.0"] in words
    assert any(line.startswith("[ok] CLIP weights") and tiny.pretrained in line for line in lines)


def test_default_weights_that_are_missing(capsys):
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.startswith("[!!] CLIP weights"))
    assert "ViT-L-14-336, openai: timm/vit_large_patch14_clip_336.openai is not in the hub's cache" in lines[place]
    remedy = "hf download timm/vit_large_patch14_clip_336.openai open_clip_model.safetensors"
    assert remedy in lines[place + 1]
    assert "--model.pretrained PATH" in lines[place + 1]
    assert lines[-2].startswith("[!!] offline prediction")


def test_every_ill_line_names_a_remedy(installed, monkeypatch):
    installed.plugins, installed.missing = [], {"anomalib-aprilgan"}
    sys.meta_path.remove(installed.finder)
    monkeypatch.setattr(anomalib.models, "AprilGAN", None)
    ill = [finding for finding in examine(Settings(adapters="gone.pth")) if finding.ok is False]
    subjects = {"anomalib-aprilgan", "entry point", "start-up hook", "anomalib.models.AprilGAN"}
    assert {finding.subject for finding in ill} == subjects | {"CLIP weights", "adapters", "offline prediction"}
    assert all(finding.remedy for finding in ill)


def test_defaults_are_the_models():
    parameters = {**inspect.signature(AnomalyCLIP).parameters, **inspect.signature(AprilGAN).parameters}
    for name, parameter in inspect.signature(cli.doctor).parameters.items():
        assert parameter.default == parameters[name].default
    assert (Settings.pretrained, Settings.image_size, Settings.layers) == ("openai", 518, (6, 12, 18, 24))


def test_random_weights_need_no_file(tiny):
    findings = examine(change(tiny, pretrained=None, adapters=None))
    assert is_well(findings)
    assert Finding(ok=None, subject="CLIP weights", detail="random: good for tests only") in findings


def test_weights_in_the_hubs_cache(tiny, hub_cache):
    repository = hub_cache / "models--me--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    path = repository / "snapshots" / "abc" / "open_clip_model.safetensors"
    path.parent.mkdir(parents=True)
    shutil.copy(tiny.pretrained, path)
    findings = examine(change(tiny, pretrained="hf-hub:me/tiny"))
    assert is_well(findings)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (
        Finding(ok=True, subject="CLIP weights", detail=f"{tiny.backbone}, hf-hub:me/tiny: {path}, SHA-256 {digest}")
        in findings
    )


def test_the_default_weights_are_told_besides(tiny):
    finding = find(tiny, "default CLIP weights")
    assert finding.ok is None
    assert finding.detail.startswith("ViT-L-14-336, openai: ")
    subjects = [finding.subject for finding in examine(Settings())]
    assert "default CLIP weights" not in subjects


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "ViT-L-41"}, "Unknown backbone 'ViT-L-41'"),
        ({"backbone": "ViT-B-16", "pretrained": "opanai"}, "'opanai' is not a tag of backbone 'ViT-B-16'"),
        ({"pretrained": "gone.safetensors"}, "pretrained='gone.safetensors' is not a file"),
    ],
)
def test_weights_that_cannot_be_meant(tiny, changes, said):
    finding = find(change(tiny, **changes), "CLIP weights")
    assert finding.ok is False
    assert said in finding.detail
    assert finding.remedy == "Correct --backbone or --pretrained."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 71}, "image_size"),
        ({"layers": (1, 9), "adapters": None}, "layers"),
        ({"pretrained": "page.safetensors"}, "page.safetensors cannot be read as weights"),
        ({"pretrained": "other.safetensors"}, "other.safetensors do not fit backbone"),
    ],
)
def test_a_model_that_cannot_be_built(tiny, changes, said, golden_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("page.safetensors").write_text("<!DOCTYPE html>", encoding="utf-8")
    shutil.copy(golden_weights("tiny_rn"), "other.safetensors")
    *others, verdict = examine(change(tiny, **changes))
    assert is_well(others)
    assert (verdict.ok, verdict.subject) == (False, "offline prediction")
    assert said in verdict.detail
    assert verdict.remedy == "Correct these options."


def test_adapters_tell_of_themselves(tiny):
    assert find(tiny, "adapters").detail == (f"{tiny.adapters}: backbone tiny_vit, layers (1, 2, 3, 4), image_size 70")
    assert find(tiny, "adapters fit").ok
    assert find(change(tiny, adapters=None), "adapters").ok is None


@pytest.mark.parametrize("name", ["auto", "embedded"])
def test_bundled_adapters(name):
    settings = Settings("aprilgan-tiny", "embedded", name, image_size=192, layers=(3, 4, 5, 6))
    assert "embedded/adapters.safetensors: backbone aprilgan-tiny" in find(settings, "adapters").detail
    assert is_well(examine(settings))


def test_adapters_of_a_resnet(golden_arguments):
    names = ("backbone", "pretrained", "adapters", "image_size", "layers")
    assert is_well(examine(Settings(**{name: golden_arguments("tiny_rn")[name] for name in names})))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": (1, 2)}, r"was trained on layers [1, 2, 3, 4], the model uses [1, 2]"),
        (
            {"backbone": "ViT-B-16", "pretrained": None},
            "was trained with backbone 'tiny_vit', the model uses 'ViT-B-16'",
        ),
        ({"adapters": "mvtc"}, "adapters='mvtc' are neither mvtec, visa, embedded nor a file"),
    ],
)
def test_adapters_that_do_not_fit(tiny, changes, said):
    findings = examine(change(tiny, **changes))
    (ill,) = (finding for finding in findings if finding.subject == "adapters" and finding.ok is False)
    assert said in ill.detail
    assert "--adapters" in ill.remedy
    assert findings[-1].ok is False


def test_adapters_of_another_width(tiny, golden_adapters, tmp_path):
    # The authors' files tell neither backbone nor layers: only their shapes can be compared.
    shutil.copy(golden_adapters("tiny_rn", ".pth"), tmp_path / "other.pth")
    findings = examine(change(tiny, adapters=str(tmp_path / "other.pth")))
    details = [finding.detail for finding in findings if finding.subject == "adapters"]
    assert details[0] == f"{tmp_path / 'other.pth'}: no metadata"
    assert "the model with layers [1, 2, 3, 4] needs" in details[1]


class TestPrompts:
    """AnomalyCLIP's prompts are told of; they are no obstacle unless they were named."""

    SUBJECT = "AnomalyCLIP's prompts"

    def test_bundled_ones(self):
        settings = Settings("aprilgan-tiny", "embedded", image_size=224, layers=(2, 4, 6, 8))
        for name in ("auto", "embedded"):
            finding = find(change(settings, prompt_weights=name), self.SUBJECT)
            assert finding.ok
            assert "embedded/prompts.safetensors: backbone aprilgan-tiny, pretrained embedded" in finding.detail
            assert "trained_on RenderedProducts/" in finding.detail

    def test_misspelt_name(self, tiny):
        finding = find(change(tiny, prompt_weights="mvtc"), self.SUBJECT)
        assert finding.ok is False
        assert finding.detail.startswith("Prompts 'mvtc' are neither mvtec, visa, embedded nor a file.")
        assert finding.remedy == "Correct --prompt_weights or --backbone."

    def test_none_belong_to_the_backbone(self, tiny):
        finding = find(tiny, self.SUBJECT)
        assert finding.ok is None
        assert finding.detail == "random: for this backbone there are none"
        assert "--model.prompt_weights PATH" in finding.remedy

    @pytest.mark.parametrize(("given", "name", "ok"), [("auto", "mvtec", None), ("visa", "visa", False)])
    def test_published_ones_that_are_not_here(self, given, name, ok):
        finding = find(Settings(prompt_weights=given), self.SUBJECT)
        assert finding.ok is ok
        assert finding.detail == f"{name} is not in the cache"
        assert "copy the authors' file" in finding.remedy

    @pytest.mark.parametrize(
        ("said", "width", "complaint"),
        [
            (TrainedWith("ViT-B-16"), 32, "was trained with backbone 'ViT-B-16', the model uses 'ViT-B-32'"),
            (TrainedWith(), 32, "a backbone whose text tower has width 32"),
        ],
    )
    def test_a_file_that_does_not_fit(self, said, width, complaint, tmp_path):
        LearnedPrompts(width, 4, 2, 3).save(tmp_path / "prompts.safetensors", said)
        settings = Settings("ViT-B-32", None, None, 224, (12,), str(tmp_path / "prompts.safetensors"))
        findings = examine(settings)
        (finding,) = (finding for finding in findings if finding.subject == self.SUBJECT)
        assert finding.ok is False
        assert complaint in finding.detail
        assert findings[-1].ok  # AprilGAN can predict

    def test_a_file_that_fits(self, tiny, tmp_path):
        LearnedPrompts(32, 4, 2, 3).save(tmp_path / "prompts.safetensors", TrainedWith(trained_on="Visa"))
        finding = find(change(tiny, prompt_weights=str(tmp_path / "prompts.safetensors")), self.SUBJECT)
        assert finding.detail == f"{tmp_path / 'prompts.safetensors'}: trained_on Visa"


def test_an_entry_point_is_needed(tiny, installed):
    ours = EntryPoint("anomaly_clip", "anomalib_aprilgan:AnomalyCLIP", GROUP)
    installed.plugins = [ours, EntryPoint("lotus", "lotus:Lotus", GROUP), EntryPoint("odd", "lotus-x:Lotus", GROUP)]
    findings = examine(tiny)
    assert [each.detail for each in findings if each.subject == "other plugin"] == [
        "lotus = lotus:Lotus",
        "odd = lotus-x:Lotus",
    ]
    assert find(tiny, "entry point").ok is False
    assert Finding(ok=None, subject="other plugin", detail="lotus = lotus:Lotus") in findings
    assert not is_well(findings)


def test_the_start_up_hook_is_active(tiny):
    assert find(tiny, "start-up hook") == Finding(
        ok=True, subject="start-up hook", detail="active: /site-packages/_anomalib_aprilgan_hook.py"
    )


@pytest.mark.parametrize(
    ("is_there", "switch", "detail", "remedy"),
    [
        (False, "", "not installed", "pip install anomalib-aprilgan"),
        (True, "off", "inactive: ANOMALIB_MODEL_PLUGINS=off", "Unset ANOMALIB_MODEL_PLUGINS."),
        (True, "", "has not run the .pth file beside /site-packages/", "import anomalib_aprilgan before"),
    ],
    ids=["absent", "switched off", "no site"],
)
def test_the_start_up_hook_is_inactive(tiny, installed, monkeypatch, is_there, switch, detail, remedy):
    sys.meta_path.remove(installed.finder)
    monkeypatch.setenv("ANOMALIB_MODEL_PLUGINS", switch)
    if not is_there:
        monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    finding = find(tiny, "start-up hook")
    assert finding.ok is False
    assert detail in finding.detail
    assert remedy in finding.remedy


def test_anomalib_must_know_the_model(tiny, monkeypatch):
    monkeypatch.setattr(anomalib.models, "ALLOWED_MODULES", {"anomalib.models"})
    monkeypatch.setattr(anomalib.models, "list_models", lambda case: {"Padim"})
    monkeypatch.setattr(anomalib.models, "AprilGAN", anomalib.models.Padim)
    for subject in ("ALLOWED_MODULES", "get_model", "anomalib.models.AprilGAN"):
        assert find(tiny, subject).ok is False


def test_missing_packages_are_named(tiny, installed):
    installed.missing = {"torchvision", "open_clip_torch"}
    findings = examine(tiny)
    ill = [(finding.subject, finding.detail) for finding in findings if finding.ok is False]
    assert ill == [("torchvision", "not installed"), ("open_clip_torch", "not installed")]


@pytest.mark.parametrize("release", ["2.24.0", "2.26.0", "2.9.9", ""])
def test_winclip_is_right_below_its_limit(release):
    assert not list(judge_winclip(release))


@pytest.mark.parametrize("release", ["2.26.1", "2.32.0", "3.3.0", "3.4.0.dev1"])
def test_winclip_is_warned_of_and_nothing_else(release):
    (finding,) = judge_winclip(release)
    assert is_well([finding])
    assert f"wrong window embeddings with open_clip_torch {release}; AprilGAN is not affected" in finding.detail
    assert "'open_clip_torch<2.26.1'" in finding.remedy


def test_the_text_cache(tiny, cache_folder):
    assert find(tiny, "text cache") == Finding(
        ok=True, subject="text cache", detail=f"{cache_folder}, writable, entries: 0"
    )
    (cache_folder / "text").mkdir()
    (cache_folder / "text" / "a.safetensors").touch()
    assert find(tiny, "text cache").detail == f"{cache_folder}, writable, entries: 1"


def test_a_cache_that_cannot_be_written_is_no_obstacle(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").touch(mode=0o777)
    monkeypatch.setenv("ANOMALIB_APRILGAN_CACHE", str(tmp_path / "file" / "cache"))
    findings = examine(tiny)
    (finding,) = (finding for finding in findings if finding.subject == "text cache")
    assert "not writable, entries: 0" in finding.detail
    assert "ANOMALIB_APRILGAN_CACHE" in finding.remedy
    assert is_well(findings)


def test_the_hubs_settings(tiny, hub_cache, monkeypatch):
    assert find(tiny, "hub cache").detail == str(hub_cache)
    assert find(tiny, "hub endpoint").detail.endswith("HF_HUB_OFFLINE is not set")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
    detail = "https://mirror.example (HF_ENDPOINT names another); HF_HUB_OFFLINE forbids the network"
    assert find(tiny, "hub endpoint").detail == detail


def test_a_broken_part_is_reported(tiny, monkeypatch):
    def fail(*arguments):
        msg = "libcudart.so.12:\ncannot open"
        raise ImportError(msg)

    monkeypatch.setattr(weights, "locate", fail)
    findings = examine(tiny)
    (ill,) = (finding for finding in findings if finding.subject == "CLIP weights")
    assert ill.ok is False
    assert "ImportError: libcudart.so.12:" in ill.detail
    assert "pip check" in ill.remedy
    assert findings[-1].subject == "offline prediction"
    assert "libcudart.so.12: cannot open" in render(findings)


def test_what_was_found_before_a_part_broke_is_reported(tiny, monkeypatch):
    monkeypatch.delattr(anomalib.models, "list_models")
    findings = examine(tiny)
    subjects = [finding.subject for finding in findings]
    assert {"entry point", "start-up hook", "registration", "offline prediction"} <= set(subjects)
    assert "AttributeError" in findings[subjects.index("registration")].detail


def test_the_report():
    findings = [
        Finding(ok=True, subject="a", detail="1.0"),
        Finding(ok=None, subject="three", detail="two\nlines"),
        Finding(ok=False, subject="bb", detail="none", remedy="Get one."),
    ]
    assert render(findings).splitlines() == [
        "[ok] a      1.0",
        "[--] three  two lines",
        "[!!] bb     none",
        "            -> Get one.",
    ]
    assert not is_well(findings)
    assert is_well(findings[:2])


def test_help_names_the_subcommands(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    assert "Tell whether anomalib knows AprilGAN" in capsys.readouterr().out


def test_unknown_options_are_refused(capsys):
    with pytest.raises(SystemExit) as done:
        main(["doctor", "--backbones", "RN50"])
    assert done.value.code == 2
    assert "--backbones RN50. Did you mean backbone?\n" in capsys.readouterr().err


def test_unknown_options_of_a_file_are_refused(tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text("methods: {}\ndatasets: {}\nshotz: [0]\n", encoding="utf-8")
    with pytest.raises(SystemExit) as done:
        main(["benchmark", "--config", str(tmp_path / "plan.yaml")])
    assert done.value.code == 2
    assert "does not accept option 'shotz'. Did you mean shots?\n" in capsys.readouterr().err
