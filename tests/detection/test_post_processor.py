# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Verdicts: thresholds that hold with saturated scores, and rescaling that keeps the order."""

import json
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from hypothesis import given
from torchmetrics.functional.classification import binary_auroc

from anomalib_aprilgan.detection.post_processor import ProbabilityPostProcessor


class OneProcess:
    """A trainer whose process has all of the data."""

    class strategy:  # ruff: ignore[invalid-class-name]
        @staticmethod
        def reduce_boolean_decision(decision, all):  # ruff: ignore[builtin-argument-shadowing]
            return decision


ONE_PROCESS = OneProcess()

# Of AUROC where the drawn scores happen to be of one class.
pytestmark = pytest.mark.filterwarnings("ignore:No positive samples in targets:UserWarning")

# A grid on which straight lines cannot make neighbours equal in float32.
SCORES = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


def batch_of(
    scores: list[float],
    labels: list[int] | None = None,
    maps: torch.Tensor | None = None,
    masks: torch.Tensor | None = None,
) -> ImageBatch:
    return ImageBatch(
        image=torch.zeros(len(scores), 3, 2, 2),
        pred_score=torch.tensor(scores),
        gt_label=None if labels is None else torch.tensor(labels).bool(),
        anomaly_map=maps,
        gt_mask=masks,
    )


def fitted(*batches: ImageBatch) -> ProbabilityPostProcessor:
    post_processor = ProbabilityPostProcessor()
    for batch in batches:
        post_processor.on_validation_batch_end(None, None, batch)
    post_processor.on_validation_epoch_end(ONE_PROCESS, None)
    return post_processor


def judge(post_processor: ProbabilityPostProcessor, scores: list[float]) -> tuple[list[float], list[bool]]:
    batch = batch_of(scores)
    post_processor.on_test_batch_end(None, None, batch)
    return batch.pred_score.tolist(), batch.pred_label.tolist()


class TestVerdicts:
    def test_scores_at_the_threshold_count_as_anomalous(self):
        # F1 is largest where 0.75 and 1 are anomalous; the threshold is the middle of 0.25 and 0.75.
        post_processor = fitted(batch_of([0.125, 0.25, 0.75, 1.0], [0, 0, 1, 1]))
        assert judge(post_processor, [0.125, 0.25, 0.499, 0.5, 0.75])[1] == [False, False, False, True, True]

    @pytest.mark.parametrize("normal", [[0.1, 0.2], [0.999, 0.5], [1.0, 0.5]], ids=str)
    def test_saturated_scores_stay_anomalous(self, normal):
        post_processor = fitted(batch_of([*normal, 1.0, 1.0, 1.0], [0, 0, 1, 1, 1]))
        scores, labels = judge(post_processor, [*normal, 1.0, 1.0])
        assert labels == [score == 1 for score in normal] + [True, True]
        assert scores[-1] > 0.5

    def test_what_is_no_number_is_anomalous(self):
        assert judge(fitted(batch_of([0.25, 0.75], [0, 1])), [0.25, float("nan")])[1] == [False, True]
        assert judge(ProbabilityPostProcessor(), [0.25, float("nan")])[1] == [False, True]

    def test_threshold_of_zero_makes_all_anomalous(self):
        scores, labels = judge(fitted(batch_of([0.0, 0.0, 0.0], [0, 1, 1])), [0.0, 0.3, 1.0])
        assert labels == [True, True, True]
        assert all(0.5 < score <= 1 for score in scores)

    @pytest.mark.parametrize("scores", [[0.2, 0.7, 0.4], [1.0, 1.0, 0.3], [0.0, 0.0, 0.0]], ids=str)
    def test_nothing_in_an_all_normal_validation_set_is_anomalous(self, scores):
        assert judge(fitted(batch_of(scores, [0, 0, 0])), scores)[1] == [False, False, False]

    def test_what_exceeds_an_all_normal_validation_set_is_anomalous(self):
        assert judge(fitted(batch_of([0.2, 0.7], [0, 0])), [0.7, 0.71])[1] == [False, True]

    @pytest.mark.parametrize("scores", [[0.2, 0.7], [1.0, 1.0], [0.0, 1.0]], ids=str)
    def test_everything_in_an_all_anomalous_validation_set_is_anomalous(self, scores):
        assert judge(fitted(batch_of(scores, [1, 1])), scores)[1] == [True, True]

    def test_all_batches_of_validation_count(self):
        post_processor = fitted(batch_of([0.1, 0.2], [0, 0]), batch_of([0.6, 0.8], [1, 1]))
        assert judge(post_processor, [0.39, 0.41])[1] == [False, True]

    def test_second_validation_replaces_the_first(self):
        post_processor = fitted(batch_of([0.1, 0.2], [0, 1]))
        post_processor.on_validation_batch_end(None, None, batch_of([0.1, 0.9], [0, 1]))
        post_processor.on_validation_epoch_end(ONE_PROCESS, None)
        assert judge(post_processor, [0.3, 0.9])[1] == [False, True]

    def test_higher_sensitivity_finds_more(self):
        scores = [0.1, 0.2, 0.59, 0.6]
        post_processor = fitted(batch_of(scores, [0, 0, 0, 1]))
        assert judge(post_processor, scores)[1] == [False, False, False, True]
        post_processor.image_sensitivity = 0.6
        assert judge(post_processor, scores)[1] == [False, False, True, True]

    @pytest.mark.parametrize(("image", "pixel"), [(0.5, 0.5), (0.8, 0.5), (0.5, 0.8), (0.3, 0.6)])
    @pytest.mark.parametrize("by_constructor", [True, False])
    def test_either_sensitivity_moves_its_own_limit_alone(self, image, pixel, by_constructor):
        given = {"image_sensitivity": image, "pixel_sensitivity": pixel}
        post_processor = ProbabilityPostProcessor(**given if by_constructor else {})
        if not by_constructor:
            post_processor.image_sensitivity, post_processor.pixel_sensitivity = image, pixel
        scores = [0.15, 0.25, 0.45, 0.65, 0.85]
        batch = batch_of(scores, maps=torch.tensor(scores).reshape(5, 1, 1))
        post_processor.on_test_batch_end(None, None, batch)
        assert batch.pred_label.tolist() == [score > 1 - image for score in scores]
        assert batch.pred_mask.flatten().tolist() == [score > 1 - pixel for score in scores]


class TestWithoutValidation:
    def test_scores_stay_and_labels_say_whether_they_exceed_one_half(self):
        given = [0.0, 0.25, 0.5, 0.75, 1.0]
        scores, labels = judge(ProbabilityPostProcessor(), given)
        assert scores == given
        assert labels == [False, False, False, True, True]

    def test_maps_stay_and_masks_say_where_they_exceed_one_half(self):
        maps = torch.tensor([[[0.0, 0.5], [0.6, 1.0]]])
        batch = batch_of([0.3], maps=maps.clone())
        ProbabilityPostProcessor().on_predict_batch_end(None, None, batch)
        assert torch.equal(torch.as_tensor(batch.anomaly_map).squeeze(), maps.squeeze())
        assert torch.as_tensor(batch.pred_mask).squeeze().tolist() == [[False, False], [True, True]]

    def test_validation_without_a_batch_changes_nothing(self):
        assert judge(fitted(), [0.2, 0.7]) == judge(ProbabilityPostProcessor(), [0.2, 0.7])


class TestRescaling:
    def test_threshold_becomes_one_half_and_the_ends_stay(self):
        scores, _ = judge(fitted(batch_of([0.7, 0.9], [0, 1])), [0.0, 0.4, 0.8, 0.9, 1.0])
        assert scores == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0], abs=1e-6)

    @given(validation=st.lists(SCORES, min_size=2, max_size=8), scores=st.lists(SCORES, min_size=1, max_size=20))
    def test_order_is_kept_and_so_is_auroc(self, validation, scores):
        post_processor = fitted(batch_of(validation, [index % 2 for index in range(len(validation))]))
        rescaled, labels = judge(post_processor, scores)
        assert all(0 <= score <= 1 for score in rescaled)
        for (score, new), (next_score, next_new) in pairwise(sorted(zip(scores, rescaled, strict=True))):
            assert (new < next_new) == (score < next_score)
        assert labels == [score > 0.5 for score in rescaled]
        target = torch.arange(len(scores)) % 2
        before, after = (binary_auroc(torch.tensor(values), target) for values in (scores, rescaled))
        assert before == after

    @given(
        threshold=st.floats(0, 1, width=32),
        scores=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20),
        has_anomalies=st.booleans(),
    )
    def test_order_is_never_reversed_at_any_threshold(self, threshold, scores, has_anomalies):
        post_processor = fitted(batch_of([threshold], [has_anomalies]))
        rescaled, labels = judge(post_processor, sorted(scores))
        assert rescaled == sorted(rescaled)
        assert all(0 <= score <= 1 for score in rescaled)
        limit = [score >= threshold if has_anomalies else score > threshold for score in sorted(scores)]
        clear = [abs(score - threshold) > 1e-6 or score == threshold for score in sorted(scores)]
        assert [label for label, is_clear in zip(labels, clear, strict=True) if is_clear] == [
            label for label, is_clear in zip(limit, clear, strict=True) if is_clear
        ]

    def test_ties_stay_ties(self):
        scores, _ = judge(fitted(batch_of([0.1, 0.8], [0, 1])), [0.3, 0.3, 0.95, 0.95])
        assert scores[0] == scores[1] < scores[2] == scores[3]


class TestPixels:
    MAPS = torch.tensor([[[0.1, 0.2], [0.3, 0.4]], [[0.1, 0.2], [0.3, 0.9]]])
    MASKS = torch.tensor([[[0, 0], [0, 0]], [[0, 0], [1, 1]]]).bool()

    def judge_maps(self, post_processor: ProbabilityPostProcessor) -> list[list[list[bool]]]:
        batch = batch_of([0.0, 0.0], maps=self.MAPS.clone())
        post_processor.on_test_batch_end(None, None, batch)
        return torch.as_tensor(batch.pred_mask).reshape(2, 2, 2).tolist()

    def test_image_threshold_says_nothing_about_maps(self):
        post_processor = fitted(batch_of([0.05, 0.1], [0, 1]))
        assert post_processor.pixel_threshold.isnan()
        assert self.judge_maps(post_processor) == (self.MAPS > 0.5).tolist()

    def test_pixel_threshold_says_nothing_about_images(self):
        batch = ImageBatch(image=torch.zeros(2, 3, 2, 2), anomaly_map=self.MAPS.clone(), gt_mask=self.MASKS)
        post_processor = fitted(batch)
        assert post_processor.image_threshold.isnan()
        assert judge(post_processor, [0.3, 0.6]) == ([pytest.approx(0.3), pytest.approx(0.6)], [False, True])

    def test_either_threshold_is_fitted_to_its_own_scores(self):
        post_processor = fitted(batch_of([0.7, 0.8], [0, 1], self.MAPS.clone(), self.MASKS))
        assert post_processor.image_threshold.item() == pytest.approx(0.75)
        assert post_processor.pixel_threshold.item() == pytest.approx(0.3)
        assert self.judge_maps(post_processor) == (self.MAPS >= 0.3).tolist()

    def test_images_without_maps_get_labels_only(self):
        predictions = ProbabilityPostProcessor()(InferenceBatch(pred_score=torch.tensor([0.2, 0.8])))
        assert predictions.pred_label.tolist() == [False, True]
        assert predictions.anomaly_map is None
        assert predictions.pred_mask is None


class TestTinyScores:
    def test_scores_far_below_one_step_keep_their_verdicts(self):
        scores, labels = [1e-9, 2e-9, 3e-8, 9e-8], [0, 0, 1, 1]
        post_processor = fitted(batch_of(scores, labels))
        predictions = post_processor(InferenceBatch(pred_score=torch.tensor(scores)))
        assert predictions.pred_label.tolist() == [False, False, True, True]

    @given(st.lists(st.floats(-12, 0), min_size=2, max_size=20), st.integers(0, 19))
    def test_verdicts_are_scores_that_reach_the_threshold(self, exponents, position):
        scores = torch.tensor([10.0**exponent for exponent in exponents])
        threshold = scores[position % len(scores)]
        post_processor = ProbabilityPostProcessor()
        post_processor._image_threshold.copy_(threshold)
        predictions = post_processor(InferenceBatch(pred_score=scores))
        assert torch.equal(predictions.pred_label, scores >= threshold)

    def test_any_process_may_have_seen_the_anomalies(self):
        class OneOfTwo(OneProcess):
            class strategy:  # ruff: ignore[invalid-class-name]
                @staticmethod
                def reduce_boolean_decision(decision, all):  # ruff: ignore[builtin-argument-shadowing]
                    return not all

        post_processor = ProbabilityPostProcessor()
        post_processor.on_validation_batch_end(None, None, batch_of([0.25, 0.5], [0, 0]))
        post_processor.on_validation_epoch_end(OneOfTwo(), None)
        assert post_processor.image_threshold.item().hex() == (0.5).hex()  # else it would be the next larger number


class TestState:
    def test_thresholds_and_sensitivities_come_back(self):
        saved = fitted(batch_of([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1]))
        saved.image_sensitivity, saved.pixel_sensitivity = 0.7, 0.6
        restored = ProbabilityPostProcessor()
        restored.load_state_dict(saved.state_dict())
        restored.load_checkpoint_config(json.loads(json.dumps(saved.checkpoint_config())))
        scores = [0.1, 0.5, 0.6, 0.9]
        assert judge(restored, scores) == judge(saved, scores)
        assert restored.pixel_sensitivity == pytest.approx(0.6)
