# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The torch model: what setup settles, what forward says, and what it refuses."""

import copy
import re
import shutil
import warnings

import pytest
import torch
from torch.nn import functional

from anomalib_aprilgan import AprilGANModel, PromptEnsemble
from anomalib_aprilgan.april_gan import torch_model
from anomalib_aprilgan.april_gan.adapters import AdapterMetadata, ProjectionAdapters, StageAdapters
from anomalib_aprilgan.april_gan.torch_model import as_prompts
from anomalib_aprilgan.components.anomaly_maps import logit_difference

pytestmark = pytest.mark.filterwarnings("ignore:No adapters given")

SHORT_PROMPTS = {"normal_states": ["{}"], "anomalous_states": ["broken {}"], "templates": ["a {}."]}


@pytest.fixture
def arguments(golden_dir, golden_weights, golden_adapters):
    """Arguments of the golden ViT at its own size, with short prompts."""
    return {
        "backbone": str(golden_dir / "tiny_vit.json"),
        "pretrained": str(golden_weights("tiny_vit")),
        "image_size": 56,
        "layers": [1, 2, 3, 4],
        "adapters": str(golden_adapters("tiny_vit")),
        "prompts": SHORT_PROMPTS,
    }


@pytest.fixture
def build(arguments):
    """Builds the golden ViT with some arguments changed."""
    return lambda **changes: AprilGANModel(**{**arguments, **changes})


@pytest.fixture
def references():
    """Two images that stand for normal ones."""
    return torch.randn(2, 3, 56, 56)


@pytest.fixture
def images():
    """Three images to be judged."""
    return torch.randn(3, 3, 56, 56)


@pytest.fixture(params=["zero-shot", "few-shot"])
def model(request, build, references):
    """A model that is set up, without and with references."""
    model = build()
    model.setup("nut", references if request.param == "few-shot" else None)
    return model


class TestSetup:
    def test_what_is_not_given_stays_as_it_is(self, build, references):
        model = build()
        assert model.class_name is None
        assert not model.is_few_shot

        model.setup("nut")
        text = model.text_features
        assert (model.class_name, model.is_few_shot) == ("nut", False)

        model.setup(reference_images=references)
        banks = [bank.tokens for bank in model.memory_banks]
        assert (model.class_name, model.is_few_shot) == ("nut", True)
        assert torch.equal(model.text_features, text)

        model.setup("screw")
        assert (model.class_name, model.is_few_shot) == ("screw", True)
        assert not torch.equal(model.text_features, text)
        assert all(torch.equal(bank.tokens, tokens) for bank, tokens in zip(model.memory_banks, banks, strict=True))

        model.setup()
        assert (model.class_name, model.is_few_shot) == ("screw", True)

    def test_order_of_class_name_and_references_does_not_matter(self, build, references, images):
        first, second = build(), build()
        first.setup("nut")
        first.setup(reference_images=references)
        second.setup(reference_images=references)
        second.setup("nut")
        assert torch.equal(first(images).anomaly_map, second(images).anomaly_map)

    def test_new_references_replace_the_old_ones(self, build, references, images):
        model, fresh = build(), build()
        model.setup("nut", torch.randn(3, 3, 56, 56))
        model.setup(reference_images=references)
        fresh.setup("nut", references)
        assert [len(bank.tokens) for bank in model.memory_banks] == [2 * 16] * 4
        assert torch.equal(model(images).anomaly_map, fresh(images).anomaly_map)

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
    def test_references_are_encoded_a_few_at_a_time_with_the_same_result(self, build, monkeypatch, batch_size):
        references = torch.randn(5, 3, 56, 56)
        monkeypatch.setattr(torch_model, "REFERENCE_BATCH_SIZE", 5)
        together, apart = build(), build()
        together.setup(reference_images=references)
        monkeypatch.setattr(torch_model, "REFERENCE_BATCH_SIZE", batch_size)
        sizes = []
        apart.clip.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
        apart.setup(reference_images=references)
        assert max(sizes) <= batch_size
        assert sum(sizes) == 5
        for ours, theirs in zip(apart.memory_banks, together.memory_banks, strict=True):
            torch.testing.assert_close(ours.tokens, theirs.tokens, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("class_name", ["", " ", 5])
    def test_empty_class_name_is_refused_and_changes_nothing(self, build, class_name):
        model = build()
        model.setup("nut")
        with pytest.raises(ValueError, match="class_name must be a non-empty string"):
            model.setup(class_name)
        assert model.class_name == "nut"

    def test_forward_before_setup_is_refused(self, build, images):
        with pytest.raises(RuntimeError, match=r"No class name was set: call setup\(class_name='...'\) first"):
            build()(images)

    def test_references_alone_are_not_enough(self, build, references, images):
        model = build()
        model.setup(reference_images=references)
        with pytest.raises(RuntimeError, match="No class name was set"):
            model(images)

    def test_adapters_that_have_not_come_are_refused(self, build, references):
        model = build(adapters="checkpoint")
        for arguments in ({"class_name": "nut"}, {"reference_images": references}):
            with pytest.raises(RuntimeError, match="adapters='checkpoint' needs a checkpoint to be loaded first"):
                model.setup(**arguments)

    def test_state_dict_brings_adapters_text_and_references(self, build, references, images):
        saved, restored = build(), build(adapters="checkpoint")
        saved.setup("nut", references)
        restored.load_state_dict(saved.state_dict())
        assert restored.is_few_shot
        assert torch.equal(restored(images).anomaly_map, saved(images).anomaly_map)
        assert torch.equal(restored(images).pred_score, saved(images).pred_score)

    def test_copy_stands_on_its_own(self, model, images):
        verdict = model(images)
        copied = copy.deepcopy(model)
        model.text_features.zero_()
        assert torch.equal(copied(images).anomaly_map, verdict.anomaly_map)


class TestVerdict:
    def test_shapes_and_ranges(self, model, images):
        evidence, verdict = model.evidence(images), model(images)
        assert evidence.text_score.shape == verdict.pred_score.shape == (3,)
        assert evidence.zero_shot_maps.shape == (3, 4, 56, 56)
        assert verdict.anomaly_map.shape == (3, 56, 56)
        for values in (evidence.text_score, evidence.zero_shot_maps, verdict.pred_score):
            assert 0 <= values.min() <= values.max() <= 1
        if model.is_few_shot:
            assert evidence.few_shot_maps.shape == (3, 4, 56, 56)
            assert -1e-6 <= evidence.few_shot_maps.min() <= evidence.few_shot_maps.max() <= 2
        else:
            assert evidence.few_shot_maps is None

    def test_nothing_but_scores_and_maps_is_said(self, model, images):
        verdict = model(images)
        assert verdict.pred_label is None
        assert verdict.pred_mask is None
        assert not verdict.anomaly_map.requires_grad
        assert not verdict.pred_score.requires_grad

    def test_map_is_the_mean_of_all_stage_maps(self, model, images):
        evidence = model.evidence(images)
        stage_maps = [maps for maps in (evidence.zero_shot_maps, evidence.few_shot_maps) if maps is not None]
        total, number = sum(maps.sum(dim=1) for maps in stage_maps), sum(maps.shape[1] for maps in stage_maps)
        torch.testing.assert_close(model(images).anomaly_map, total / number)

    def test_score_without_references_is_the_text_score(self, build, images):
        model = build()
        model.setup("nut")
        assert torch.equal(model(images).pred_score, model.evidence(images).text_score)

    def test_score_with_references_is_the_mean_of_text_score_and_largest_value(self, build, references, images):
        model = build()
        model.setup("nut", references)
        verdict, text_score = model(images), model.evidence(images).text_score
        expected = [(text + one.max()) / 2 for text, one in zip(text_score, verdict.anomaly_map, strict=True)]
        torch.testing.assert_close(verdict.pred_score, torch.stack(expected))

    @pytest.mark.parametrize(("distance", "expected"), [(2.0, 1.0), (-1e-7, 0.5)])
    def test_score_stays_a_probability_when_distances_are_not(self, build, references, images, distance, expected):
        model = build()
        model.setup("nut", references)
        maps = torch.full((3, 4, 56, 56), distance)
        evidence = torch_model.Evidence(torch.ones(3), maps, maps)
        model.evidence = lambda _: evidence
        assert model(images).pred_score.tolist() == [expected] * 3

    def test_reference_itself_is_at_distance_zero(self, build, references):
        model = build()
        model.setup("nut", references)
        distances = model.evidence(references).few_shot_maps
        torch.testing.assert_close(distances, torch.zeros_like(distances), rtol=0, atol=1e-5)

    def test_one_pass_of_the_image_tower_does_for_a_call(self, model, images):
        sizes = []
        model.clip.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
        model(images)
        assert sizes == [3]

    def test_stages_do_not_pile_up(self, model, images, watch_streams):
        held = watch_streams(model.clip.visual)
        model(images)
        assert held == [0, 0, 0, 0]

    def test_images_are_judged_each_by_itself(self, model, images):
        together = model(images)
        alone = [model(image[None]) for image in images]
        for field in ("anomaly_map", "pred_score"):
            ours = torch.cat([getattr(verdict, field) for verdict in alone])
            torch.testing.assert_close(ours, getattr(together, field), rtol=0, atol=1e-5)

    def test_order_of_the_batch_is_kept(self, model, images):
        torch.testing.assert_close(
            model(images.flip(0)).anomaly_map, model(images).anomaly_map.flip(0), rtol=0, atol=1e-5
        )

    def test_training_mode_changes_nothing(self, model, images):
        verdict = model.eval()(images)
        assert torch.equal(model.train()(images).anomaly_map, verdict.anomaly_map)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast_changes_nothing(self, build, references, images, cache_folder, dtype):
        plain, cast = build(), build()
        with torch.autocast("cpu", dtype=dtype):
            cast.setup("nut", references)
            verdict = cast(images)
        shutil.rmtree(cache_folder)  # or the other would take the text features from there
        plain.setup("nut", references)
        assert torch.equal(cast.text_features, plain.text_features)
        assert verdict.anomaly_map.dtype == torch.float32
        assert torch.equal(verdict.anomaly_map, plain(images).anomaly_map)
        assert torch.equal(verdict.pred_score, plain(images).pred_score)

    def test_half_precision_of_the_tower_moves_maps_a_little(self, build, references, images):
        exact, half = build(), build(precision="bf16")
        for model in (exact, half):
            model.setup("nut", references)
        assert half(images).anomaly_map.dtype == torch.float32
        difference = (half(images).anomaly_map - exact(images).anomaly_map).abs()
        assert 0 < difference.mean() < 0.02

    def test_few_shot_layers_may_be_others_than_layers(self, build, references, images):
        model = build(few_shot_layers=[2, 3], layers=[1, 4], adapters=None)
        model.setup("nut", references)
        assert model.clip.layers == (1, 2, 3, 4)
        evidence = model.evidence(images)
        assert evidence.zero_shot_maps.shape[1] == evidence.few_shot_maps.shape[1] == 2
        every = build(adapters=None)
        every.setup("nut", references)
        expected = every.evidence(images)
        torch.testing.assert_close(evidence.zero_shot_maps, expected.zero_shot_maps[:, [0, 3]])
        torch.testing.assert_close(evidence.few_shot_maps, expected.few_shot_maps[:, [1, 2]])


class TestImages:
    @pytest.mark.parametrize(
        "shape",
        [(3, 56, 56), (0, 3, 56, 56), (1, 1, 56, 56), (1, 3, 56, 70), (1, 3, 70, 70), (1, 56, 56, 3), (56,)],
        ids=str,
    )
    def test_images_of_another_shape_are_refused(self, model, shape):
        expected = f"Expected images (N, 3, 56, 56), got {shape}. Use the model's pre_processor."
        with pytest.raises(ValueError, match=re.escape(expected)):
            model(torch.zeros(shape))
        with pytest.raises(ValueError, match=re.escape(expected)):
            model.setup(reference_images=torch.zeros(shape))

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    def test_images_that_are_not_finite_are_refused_by_number(self, model, images, value):
        images[0, 1, 2, 3] = images[2, 0, 0, 0] = value
        banks = [bank.tokens.clone() for bank in model.memory_banks]
        expected = "Images [0, 2] of the batch hold NaN or infinite values."
        with pytest.raises(ValueError, match=re.escape(expected)):
            model(images)
        with pytest.raises(ValueError, match=re.escape(expected)):
            model.setup(reference_images=images)
        assert all(torch.equal(bank.tokens, before) for bank, before in zip(model.memory_banks, banks, strict=True))

    def test_refused_references_leave_nothing_behind(self, build, references):
        model, fresh = build(), build()
        images = torch.randn(6, 3, 56, 56)
        images[5, 0, 0, 0] = torch.nan  # not among the first that are encoded together
        with pytest.raises(ValueError, match=r"Images \[5\] of the batch hold NaN"):
            model.setup(reference_images=images)
        for one in (model, fresh):
            one.setup(reference_images=references)
        for ours, theirs in zip(model.memory_banks, fresh.memory_banks, strict=True):
            assert torch.equal(ours.tokens, theirs.tokens)


class TestArguments:
    @pytest.mark.filterwarnings("default:No adapters given")
    def test_model_without_adapters_warns_once_and_points_here(self, tiny_arguments):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = AprilGANModel(**tiny_arguments)
            model.setup("nut")
            model(torch.zeros(1, 3, 56, 56))
        (warning,) = [one for one in caught if issubclass(one.category, UserWarning)]
        assert str(warning.message).startswith("No adapters given: the zero-shot map uses CLIP's own projection")
        assert warning.filename == __file__
        assert isinstance(model.adapters, ProjectionAdapters)

    @pytest.mark.parametrize("adapters", ["file", "checkpoint"])
    def test_model_with_adapters_does_not_warn(self, arguments, adapters):
        given = arguments["adapters"] if adapters == "file" else adapters
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            AprilGANModel(**{**arguments, "adapters": given})

    def test_resnet_without_adapters_is_refused(self, golden_dir):
        with pytest.raises(ValueError, match="A ResNet backbone cannot localise without trained adapters"):
            AprilGANModel(str(golden_dir / "tiny_rn.json"), None, 64, [1, 2])

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"layers": []}, "layers=[] must be ascending"),
            ({"layers": [0]}, "layers=[0] must be ascending"),
            ({"layers": [2, 1]}, "layers=[2, 1] must be ascending"),
            ({"layers": [2, 2]}, "layers=[2, 2] must be ascending"),
            ({"layers": [4, 5]}, "layers=[4, 5] must be ascending, without duplicates and between 1 and 4"),
            ({"few_shot_layers": []}, "few_shot_layers=[] must be ascending"),
            ({"few_shot_layers": [3, 1]}, "few_shot_layers=[3, 1] must be ascending"),
            ({"few_shot_layers": [5]}, "few_shot_layers=[5] must be ascending, without duplicates and between 1 and 4"),
            ({"image_size": 60}, "image_size=60 must be a positive multiple of 14"),
            (
                {"image_size": 70, "tiles": 2},
                "image_size=70 must be a positive multiple of 28 for this backbone, as the side",
            ),
            ({"tiles": 0}, "tiles=0 must be 1 (whole images) or how many tiles lie side by side"),
            ({"precision": "fp8"}, "precision='fp8' is unknown"),
            ({"layers": [1, 2]}, "was trained on layers [1, 2, 3, 4], the model uses [1, 2]"),
            ({"prompts": {"states": ["{}"]}}, "Keys are normal_states, anomalous_states, templates."),
        ],
    )
    def test_bad_arguments_are_refused_by_name(self, build, changes, expected):
        with pytest.raises(ValueError, match=re.escape(expected)):
            build(**changes)

    def test_adapters_of_another_backbone_are_refused(self, tmp_path):
        StageAdapters([384], 256).save(tmp_path / "a.safetensors", AdapterMetadata(backbone="ViT-B-16"))
        arguments = {"image_size": 64, "layers": [5], "adapters": tmp_path / "a.safetensors"}
        with pytest.raises(ValueError, match="trained with backbone 'ViT-B-16', the model uses 'ViT-S-32-alt'"):
            AprilGANModel("ViT-S-32-alt", None, **arguments)

    def test_adapters_say_which_activation(self, build, arguments, tmp_path):
        adapters = StageAdapters([64] * 4, 32)
        adapters.save(tmp_path / "a.safetensors", AdapterMetadata(quick_gelu=True))
        assert build().source.quick_gelu is False
        assert build(adapters=tmp_path / "a.safetensors").source.quick_gelu is True
        with pytest.raises(ValueError, match="quick_gelu=False, but the adapters were trained with quick_gelu=True"):
            build(adapters=tmp_path / "a.safetensors", quick_gelu=False)

    def test_prompts_may_be_plain_data(self, build):
        as_data, as_ensemble = build(prompts=SHORT_PROMPTS), build(prompts=PromptEnsemble(**SHORT_PROMPTS))
        for model in (as_data, as_ensemble):
            model.setup("nut")
        assert as_data.prompts == as_ensemble.prompts
        assert torch.equal(as_data.text_features, as_ensemble.text_features)

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (None, PromptEnsemble()),
            ({}, PromptEnsemble()),
            ({"templates": ["the {}"]}, PromptEnsemble(templates=["the {}"])),
            (PromptEnsemble(["good {}"]), PromptEnsemble(["good {}"])),
        ],
    )
    def test_prompts_that_are_left_out_are_the_papers(self, given, expected):
        assert as_prompts(given) == expected

    @pytest.mark.parametrize("given", [{"states": ["{}"]}, {"templates": "a {}"}, ["a {}"], "a {}"])
    def test_prompts_of_another_kind_are_refused(self, given):
        with pytest.raises(ValueError, match=rf"prompts={re.escape(repr(given))} is not understood"):
            as_prompts(given)


@pytest.mark.parametrize("ratio", [0, -0.5, 1.5])
def test_coreset_ratio_out_of_range_is_refused(tiny_arguments, ratio):
    with pytest.raises(ValueError, match=f"coreset_ratio={ratio} must be above 0 and at most 1"):
        AprilGANModel(**tiny_arguments, coreset_ratio=ratio)


def test_references_of_a_set_up_that_failed_are_forgotten(tiny_arguments):
    model, references = AprilGANModel(**tiny_arguments, coreset_ratio=0.06), torch.rand(2, 3, 56, 56)
    with pytest.raises(ValueError, match=r"coreset_ratio=0\.06 keeps none of the 16 patches .* to 0\.0625 or more"):
        model.setup(reference_images=references[:1])
    model.setup(reference_images=references)
    assert [len(bank.tokens) for bank in model.memory_banks] == [1, 1, 1, 1]  # 0.06 of 32, not of 48
    model.coreset_ratio = 1.0
    model.setup(reference_images=references)
    assert [len(bank.tokens) for bank in model.memory_banks] == [32, 32, 32, 32]


def test_a_set_up_that_fails_changes_nothing(tiny_arguments):
    model = AprilGANModel(**tiny_arguments, coreset_ratio=0.06)
    model.setup("coin")
    text = model.text_features
    with pytest.raises(ValueError, match="keeps none of the 16 patches"):
        model.setup("nut", torch.rand(1, 3, 56, 56))
    assert model.class_name == "coin"
    assert model.text_features is text
    assert not model.is_few_shot


def test_banks_are_replaced_all_or_none(golden_arguments):
    model = AprilGANModel(**golden_arguments("tiny_rn"))
    model.setup("nut", torch.rand(2, 3, 64, 64))
    before = [bank.tokens for bank in model.memory_banks]
    model.coreset_ratio = 0.05  # of 256 patches, of 64, and of 16, of which none is left
    with pytest.raises(ValueError, match="keeps none of the 16 patches"):
        model.setup("nut", torch.rand(1, 3, 64, 64))
    assert all(bank.tokens is tokens for bank, tokens in zip(model.memory_banks, before, strict=True))


def test_coreset_ratio_makes_the_banks_smaller(tiny_arguments):
    model = AprilGANModel(**tiny_arguments, coreset_ratio=0.25)
    model.setup("bottle", torch.randn(2, 3, 56, 56))
    assert [len(bank.tokens) for bank in model.memory_banks] == [8, 8, 8, 8]  # of 2 times 16


def corners_of(images: torch.Tensor) -> list[torch.Tensor]:
    """The four tiles of images of 112 pixels, row by row."""
    return [images[:, :, y : y + 56, x : x + 56] for y in (0, 56) for x in (0, 56)]


def put_together(corners: list[torch.Tensor]) -> torch.Tensor:
    """Maps of whole images of values of 4 x 4 patches in each of four tiles."""
    a, b, c, d = (corner.unflatten(1, (4, 4)) for corner in corners)
    grid = torch.cat([torch.cat([a, b], dim=2), torch.cat([c, d], dim=2)], dim=1)  # (N, 8, 8)
    return functional.interpolate(grid[:, None], size=(112, 112), mode="bilinear", align_corners=True)[:, 0]


class TestTiles:
    """A model with tiles judges each as a model without judges a whole image."""

    @pytest.fixture
    def large_references(self):
        """A reference of 2 x 2 tiles."""
        return torch.randn(1, 3, 112, 112)

    @pytest.mark.parametrize("k_shot", [0, 1])
    def test_evidence_is_that_of_each_tile(self, build, large_references, k_shot):
        plain, tiled = build(), build(image_size=112, tiles=2)
        tiled.setup("nut", large_references if k_shot else None)
        plain.setup("nut", torch.cat(corners_of(large_references)) if k_shot else None)
        images = torch.randn(2, 3, 112, 112)
        ours = tiled.evidence(images)
        same = {"rtol": 0, "atol": 1e-5}
        text_scores = torch.stack([plain.evidence(corner).text_score for corner in corners_of(images)])  # (4, 2)
        torch.testing.assert_close(ours.text_score, text_scores.amax(dim=0), **same)
        for place, layer in enumerate(plain.layers):
            tokens = [plain.encode(corner)[1][layer] for corner in corners_of(images)]
            differences = [logit_difference(plain.adapters(each, place), plain.text_features) for each in tokens]
            torch.testing.assert_close(ours.zero_shot_maps[:, place], put_together(differences).sigmoid(), **same)
            if k_shot:
                distances = [plain.memory_banks[place].distance(each) for each in tokens]
                torch.testing.assert_close(ours.few_shot_maps[:, place], put_together(distances), **same)

    def test_no_seam_is_drawn_between_tiles(self, build):
        model = build(image_size=112, tiles=2)
        model.setup("nut")
        steps = model(torch.randn(4, 3, 112, 112)).anomaly_map.diff(dim=2).abs().mean(dim=(0, 1))  # (111,)
        assert steps[55] <= steps.max()
        assert steps[55] < 2 * steps.mean()

    def test_verdict_is_one_an_image(self, build, large_references):
        model = build(image_size=112, tiles=2)
        model.setup("nut", large_references)
        assert [len(bank.tokens) for bank in model.memory_banks] == [4 * 16] * 4
        images = torch.randn(3, 3, 112, 112)
        verdict, text_score = model(images), model.evidence(images).text_score
        assert verdict.anomaly_map.shape == (3, 112, 112)
        peak = verdict.anomaly_map.amax(dim=(1, 2)).clamp(0, 1)
        torch.testing.assert_close(verdict.pred_score, (text_score + peak) / 2)

    def test_a_coreset_is_one_of_all_tiles(self, build, large_references):
        model = build(image_size=112, tiles=2, coreset_ratio=0.25)
        model.setup("nut", large_references)
        assert [len(bank.tokens) for bank in model.memory_banks] == [16] * 4

    def test_a_resnet_has_them_too(self, golden_dir, golden_weights, golden_adapters):
        files = {"pretrained": str(golden_weights("tiny_rn")), "adapters": str(golden_adapters("tiny_rn"))}
        arguments = {"backbone": str(golden_dir / "tiny_rn.json"), "layers": [1, 2, 3, 4], "prompts": SHORT_PROMPTS}
        plain, tiled = (AprilGANModel(**arguments, **files, image_size=64 * tiles, tiles=tiles) for tiles in (1, 2))
        for model in (plain, tiled):
            model.setup("nut")
        images = torch.randn(1, 3, 128, 128)
        scores = [plain(images[:, :, y : y + 64, x : x + 64]).pred_score for y in (0, 64) for x in (0, 64)]
        torch.testing.assert_close(tiled(images).pred_score, torch.cat(scores).amax(dim=0, keepdim=True))

    def test_images_of_one_tile_are_refused(self, build):
        model = build(image_size=112, tiles=2)
        model.setup("nut")
        with pytest.raises(ValueError, match=r"Expected images \(N, 3, 112, 112\), got \(1, 3, 56, 56\)"):
            model(torch.randn(1, 3, 56, 56))
