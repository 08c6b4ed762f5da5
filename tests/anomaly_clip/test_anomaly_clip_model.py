# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The torch model: what it says, what it refuses, and what it warns of."""

import inspect
import warnings

import pytest
import torch

from anomalib_aprilgan.anomaly_clip import AnomalyCLIPModel
from anomalib_aprilgan.components import embedded
from anomalib_aprilgan.components.trained_file import TrainedWith

pytestmark = pytest.mark.filterwarnings("ignore:No prompt_weights")


@pytest.fixture
def model(small_arguments) -> AnomalyCLIPModel:
    return AnomalyCLIPModel(**small_arguments)


def test_signature_is_the_one_that_was_agreed_on():
    parameters = inspect.signature(AnomalyCLIPModel).parameters
    assert {name: parameter.default for name, parameter in list(parameters.items())[2:]} == {
        "image_size": 518,
        "layers": (24,),
        "dpam_layers": 19,
        "prompt_length": 12,
        "deep_prompt_length": 4,
        "deep_prompt_depth": 9,
        "prompt_weights": None,
        "sigma": 4.0,
        "precision": "fp32",
    }
    assert list(parameters)[:2] == ["backbone", "pretrained"]


class TestVerdict:
    """Scores and maps of any images."""

    def test_shapes_and_ranges(self, model):
        verdict = model(torch.randn(3, 3, 56, 56))
        assert verdict.anomaly_map.shape == (3, 56, 56)
        assert verdict.pred_score.shape == (3,)
        for values in verdict.anomaly_map, verdict.pred_score:
            assert values.min() >= 0
            assert values.max() <= 1

    def test_batches_do_not_matter(self, model):
        images = torch.randn(3, 3, 56, 56)
        whole = model(images)
        parts = [model(image[None]) for image in images]
        torch.testing.assert_close(torch.cat([part.anomaly_map for part in parts]), whole.anomaly_map)
        torch.testing.assert_close(torch.cat([part.pred_score for part in parts]), whole.pred_score)

    def test_stages_do_not_pile_up(self, model, watch_streams):
        held = watch_streams(model.clip.visual)
        model(torch.randn(2, 3, 56, 56))
        assert held == [0, 0, 0, 0]

    def test_map_is_the_mean_of_the_stages(self, model, small_arguments):
        images = torch.randn(2, 3, 56, 56)
        maps = []
        for layer in model.layers:
            single = AnomalyCLIPModel(**{**small_arguments, "layers": [layer]})
            single.load_state_dict(model.state_dict())
            maps.append(single(images).anomaly_map)
        torch.testing.assert_close(model(images).anomaly_map, torch.stack(maps).mean(dim=0))

    def test_equal_prompts_leave_one_half_everywhere(self, model):
        with torch.no_grad():
            model.text_features.copy_(model.text_features[:1].expand(2, -1))
        verdict = model(torch.randn(1, 3, 56, 56))
        torch.testing.assert_close(verdict.anomaly_map, torch.full((1, 56, 56), 0.5))
        assert verdict.pred_score.item() == pytest.approx(0.5)

    def test_autocast_does_not_matter(self, model):
        images = torch.randn(1, 3, 56, 56)
        with torch.autocast("cpu", torch.bfloat16):
            cast = model(images)
        torch.testing.assert_close(cast.anomaly_map, model(images).anomaly_map)
        assert cast.anomaly_map.dtype == torch.float32

    @pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.05), ("fp16", 0.005)])
    def test_narrow_tower_says_nearly_the_same(self, model, small_arguments, precision, tolerance):
        images = torch.randn(1, 3, 56, 56)
        narrow = AnomalyCLIPModel(**{**small_arguments, "precision": precision})
        narrow.prompts.load_state_dict(model.prompts.state_dict())
        narrow.read_prompts()
        assert 0 < (narrow(images).anomaly_map - model(images).anomaly_map).abs().max() < tolerance

    def test_images_of_another_size(self, model):
        with pytest.raises(ValueError, match=r"Expected images \(N, 3, 56, 56\)"):
            model(torch.zeros(1, 3, 70, 70))

    def test_state_dict_holds_prompts_and_what_they_say(self, model, small_arguments):
        other = AnomalyCLIPModel(**{**small_arguments, "prompt_weights": "checkpoint"})
        with pytest.raises(RuntimeError, match="prompt_weights='checkpoint' needs a checkpoint"):
            other(torch.zeros(1, 3, 56, 56))
        other.load_state_dict(model.state_dict())
        images = torch.randn(1, 3, 56, 56)
        assert torch.equal(other(images).anomaly_map, model(images).anomaly_map)
        names = {name for name in model.state_dict() if not name.startswith("clip.")}
        assert names == {"text_features", "prompts.context", "prompts.deep"}

    def test_exported_graph_says_the_same_of_any_number_of_images(self, model):
        batch = torch.export.Dim("batch", min=1, max=8)
        exported = torch.export.export(model, (torch.randn(2, 3, 56, 56),), dynamic_shapes=({0: batch},)).module()
        images = torch.randn(3, 3, 56, 56)
        ours, theirs = exported(images), model(images)
        torch.testing.assert_close(ours.anomaly_map, theirs.anomaly_map)
        torch.testing.assert_close(ours.pred_score, theirs.pred_score)


class TestArguments:
    """What does not fit is told when the model is built."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"layers": [5]}, "layers=\\[5\\] must be ascending"),
            ({"image_size": 60}, "image_size=60 must be a positive multiple of 14"),
            ({"dpam_layers": 5}, "dpam_layers=5 must be .* 0 to 4 for this backbone"),
            ({"precision": "int8"}, "precision='int8' is unknown"),
            ({"sigma": float("nan")}, "sigma=nan must be 0"),
            ({"sigma": "x"}, "sigma='x' must be 0"),
            ({"layers": 4}, r"layers=4 must be a list of integers such as \[6"),
            ({"deep_prompt_length": 9}, "deep_prompt_length=9 must not exceed prompt_length=4"),
        ],
    )
    def test_values(self, small_arguments, changes, message):
        with pytest.raises(ValueError, match=message):
            AnomalyCLIPModel(**{**small_arguments, **changes})

    def test_resnet(self, golden_dir):
        with pytest.raises(ValueError, match=r"tiny_rn.json' is a ResNet, which has no tokens"):
            AnomalyCLIPModel(str(golden_dir / "tiny_rn.json"), None, image_size=64, layers=[4])

    def test_no_second_stream_at_all(self, small_arguments):
        model = AnomalyCLIPModel(**{**small_arguments, "dpam_layers": 0})
        assert model(torch.zeros(1, 3, 56, 56)).anomaly_map.shape == (1, 56, 56)

    def test_random_prompts_are_told(self, small_arguments):
        with pytest.warns(UserWarning, match="No prompt_weights given: the prompts are random"):
            AnomalyCLIPModel(**small_arguments)


class TestPromptFiles:
    """A file's own words about its CLIP count."""

    @pytest.fixture
    def written(self, model, tmp_path):
        def write(**said) -> str:
            model.prompts.save(tmp_path / "prompts.safetensors", TrainedWith(**said))
            return str(tmp_path / "prompts.safetensors")

        return write

    def test_same_verdict(self, model, written, small_arguments):
        other = AnomalyCLIPModel(**small_arguments, prompt_weights=written(trained_on="Visa/candle"))
        images = torch.randn(1, 3, 56, 56)
        torch.testing.assert_close(other(images).anomaly_map, model(images).anomaly_map)
        assert other.trained_on == "Visa/candle"

    def test_other_settings_are_told(self, written, small_arguments):
        path = written(layers=(4,), dpam_layers=2, image_size=70, trained_on="Visa/candle")
        expected = (
            r"prompts\.safetensors was trained with layers=\[4\], dpam_layers=2, image_size=70, "
            r"the model uses layers=\[2, 4\], dpam_layers=3, image_size=56"
        )
        with pytest.warns(UserWarning, match=expected):
            AnomalyCLIPModel(**small_arguments, prompt_weights=path)

    @pytest.mark.parametrize("said", [{}, {"layers": (2, 4), "dpam_layers": 3, "image_size": 56}, {"layers": (2, 4)}])
    def test_same_settings_or_none_are_silent(self, written, small_arguments, said):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            AnomalyCLIPModel(**small_arguments, prompt_weights=written(**said))

    def test_bundled_prompts_are_silent(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            settings = embedded.EMBEDDED_PROMPTS
            AnomalyCLIPModel(embedded.BACKBONE, embedded.PRETRAINED, *settings, prompt_weights="embedded")

    def test_activation(self, written, small_arguments):
        assert AnomalyCLIPModel(**small_arguments, prompt_weights=written(quick_gelu=True)).source.quick_gelu

    def test_other_backbone(self, written, small_arguments):
        path = written(backbone="ViT-B-16")
        with pytest.raises(ValueError, match="was trained with backbone 'ViT-B-16', the model uses 'ViT-B-32'"):
            AnomalyCLIPModel("ViT-B-32", None, 64, [12], 6, 4, 2, 3, path)

    def test_other_weights(self, written, small_arguments, clip_backbone):
        path = written(pretrained="openai")
        assert AnomalyCLIPModel(**small_arguments, prompt_weights=path).source.pretrained is None  # nothing to compare
        arguments = {**small_arguments, **clip_backbone("tiny_vit"), "image_size": 70, "prompt_weights": path}
        with (
            pytest.warns(UserWarning, match="was trained with pretrained='openai', the model uses '.*tiny_vit"),
            pytest.raises(ValueError, match=r"Set prompt_length=4, .*whose text tower has width"),
        ):
            AnomalyCLIPModel(**arguments)
