# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""AnomalyCLIP as a model of anomalib.

Example:
    >>> from anomalib.engine import Engine  # doctest: +SKIP
    >>> from anomalib_aprilgan import AnomalyCLIP  # doctest: +SKIP
    >>> Engine().predict(AnomalyCLIP(), data_path="photos")  # doctest: +SKIP
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from torch import nn

from anomalib_aprilgan.components.embedded import AUTO, embedded_prompts, prompt_settings_of, settings_of
from anomalib_aprilgan.data.image_guard import ImageFileGuard
from anomalib_aprilgan.detection.checkpoint import holds_others, only_clip, own_entry, warn_of_unused, without_clip
from anomalib_aprilgan.detection.evaluation import default_metrics, raw_scores_first, tell_of_heat_maps
from anomalib_aprilgan.detection.export import SelfDescribingExport
from anomalib_aprilgan.detection.leak import data_under_test, find_leaks, leak_mark, warn_of_leaks
from anomalib_aprilgan.detection.plain_data import plain_layers
from anomalib_aprilgan.detection.post_processor import ProbabilityPostProcessor
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor, square_pre_processor

from .checkpoint import adopt, describe, metadata
from .published_prompts import are_published_for, choose_for, find_prompts
from .torch_model import FROM_CHECKPOINT, AnomalyCLIPModel

# Our own entry in checkpoints.
CHECKPOINT_KEY = "anomaly_clip"
PROMPTS_PREFIX = "model.prompts."


class AnomalyCLIP(SelfDescribingExport, AnomalibModule):  # type: ignore[misc]  # to_onnx is anomalib's, not Lightning's
    """AnomalyCLIP: zero-shot anomaly detection that needs no class name.

    Args:
        backbone (str): See :class:`AnomalyCLIPModel`, as all up to ``precision``.
        pretrained (str | None): Weights of CLIP. Defaults to ``auto``: ``openai``, or ``embedded`` for the backbone
            ``aprilgan-tiny``.
        image_size (int | None): Side in pixels of the model's input. Defaults to the paper's 518, or what suits
            ``aprilgan-tiny``, as the next five.
        layers (Sequence[int] | None): Blocks whose patch features are compared with the prompts.
        dpam_layers (int | None): How many of the last blocks have value-value attention.
        prompt_length (int | None): Number of learned vectors before the words.
        deep_prompt_length (int | None): Number of learned vectors in between blocks of the text tower.
        deep_prompt_depth (int | None): Number of blocks of the text tower with learned vectors.
        prompt_weights (str | Path | None): Learned prompts, see :class:`AnomalyCLIPModel`. Defaults to ``auto``: with
            the paper's backbone those of the authors that were not trained on the dataset under test, with
            ``aprilgan-tiny`` the bundled ones, else random ones, and a warning.
        sigma (float): Standard deviation in pixels of the Gaussian that smooths the map.
        precision (str): Of the frozen image tower.
        pre_processor (nn.Module | bool): Pre-processor, or whether to use the default.
        post_processor (nn.Module | bool): Post-processor, or whether to use the default.
        evaluator (Evaluator | bool): Evaluator, or whether to use the default.
        visualizer (Visualizer | bool): Visualizer, or whether to use the default.

    Raises:
        ValueError: If the torch model refuses an argument.
        WeightsNotFoundError: If CLIP's weights are neither here nor to be had.
    """

    model: AnomalyCLIPModel

    def __init__(
        self,
        backbone: str = "ViT-L-14-336",
        pretrained: str | None = AUTO,
        image_size: int | None = None,
        layers: Sequence[int] | None = None,
        dpam_layers: int | None = None,
        prompt_length: int | None = None,
        deep_prompt_length: int | None = None,
        deep_prompt_depth: int | None = None,
        prompt_weights: str | Path | None = AUTO,
        sigma: float = 4.0,
        precision: str = "fp32",
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        # The parent keeps these names as hyperparameters: plain data load with weights_only=True.
        pretrained = settings_of(backbone).pretrained if pretrained == AUTO else pretrained
        settings = prompt_settings_of(backbone).unless_given(
            image_size, layers, dpam_layers, prompt_length, deep_prompt_length, deep_prompt_depth
        )
        image_size, layers, dpam_layers, prompt_length, deep_prompt_length, deep_prompt_depth = settings
        layers = plain_layers(layers, "layers")
        prompt_weights = None if prompt_weights is None else str(prompt_weights)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor((image_size, image_size))
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        # Which of the authors' prompts is settled when the data are known; a checkpoint may bring others before.
        self.chooses_prompts = prompt_weights == AUTO and are_published_for(backbone, pretrained, settings.lengths)
        if prompt_weights == AUTO:
            bundled = embedded_prompts(backbone, pretrained, settings.lengths)
            prompt_weights = FROM_CHECKPOINT if self.chooses_prompts else bundled
        self.model = AnomalyCLIPModel(
            backbone, pretrained, *settings, prompt_weights=prompt_weights, sigma=sigma, precision=precision
        )
        self._is_restored = False

    def setup(self, stage: str) -> None:
        """Settle the prompts, unless a trainer will have it done later, when the data are known."""
        del stage
        if self._trainer is None:
            self._settle()

    # Lightning is in inference mode here; tensors made in it could never be overwritten by a checkpoint.
    @torch.inference_mode(mode=False)
    def _settle(self, *, keeps_references: bool = True) -> None:
        """Take published prompts that have not seen the data under test, unless the choice is made."""
        del keeps_references  # it has none
        if not self.chooses_prompts or self._is_restored:
            return
        names = data_under_test(self._trainer)
        choice = choose_for(*names)
        if self.model.trained_on is None or (names and choice != self.model.trained_on):
            self.model.use_prompts(find_prompts(choice))

    def on_predict_start(self) -> None:
        """Settle the prompts."""
        self._settle()

    on_validation_start = on_predict_start

    def on_test_start(self) -> None:
        """Settle the prompts, and tell if they have seen the data under test."""
        self._settle()
        warn_of_leaks("prompts", self.model.trained_on, self._trainer)

    def on_test_epoch_end(self) -> None:
        """Mark results of prompts that have seen the data under test."""
        if find_leaks(self.model.trained_on, self._trainer):
            self.log(leak_mark("prompts"), 1.0)

    def on_test_end(self) -> None:
        """Tell where the heat maps are."""
        tell_of_heat_maps(self.visualizer)

    on_predict_end = on_test_end

    # Thresholds are fitted to what the model says in validation, exactly as in the test.
    validation_step = AnomalibModule.test_step

    def val_dataloader(self) -> list[Any]:
        """No validation data where no datamodule gives any.

        Anomalib validates every zero-shot model before it predicts and fails if no loader is defined at all.
        """
        return []

    @staticmethod
    def configure_optimizers() -> None:
        """Nothing is trained here."""

    def configure_callbacks(self) -> list[Callback]:
        """Components, and before them the guard against unreadable and 16-bit files."""
        guard = ImageFileGuard(self.model.image_size, squashes=isinstance(self.pre_processor, CLIPPreProcessor))
        return [guard, *raw_scores_first(super().configure_callbacks())]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen CLIP out, note what belongs to it, and need no other file but CLIP's when loaded."""
        self._settle()  # perhaps nothing was judged so far
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] = without_clip(self.state_dict())
        checkpoint["hyper_parameters"]["prompt_weights"] = FROM_CHECKPOINT
        checkpoint[CHECKPOINT_KEY] = describe(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this CLIP, take over what it says, and tell of prompts that are not used.

        Raises:
            ValueError: If it is of another model, or of another CLIP; differences are named.
        """
        state = checkpoint["state_dict"]
        adopt(self.model, own_entry(checkpoint, CHECKPOINT_KEY, self.name))
        given = self.hparams["prompt_weights"]
        if given not in {None, AUTO, FROM_CHECKPOINT} and holds_others(state, PROMPTS_PREFIX, self.model.prompts):
            warn_of_unused({"prompt_weights": given})
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"] = {**state, **only_clip(self.state_dict())}
        self._is_restored = True

    def export_metadata(self) -> dict[str, str]:
        """What all verdicts depend on, with JSON for values; the model must be set up."""
        return metadata(self.model)

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No special arguments for the trainer."""
        return {}

    @property
    def learning_type(self) -> LearningType:
        """Zero-shot: there is nothing to learn from the data under test."""
        return LearningType.ZERO_SHOT

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> CLIPPreProcessor:
        """Default pre-processor: squash to a square, CLIP's normalisation.

        Args:
            image_size (tuple[int, int] | None): Height and width, equal. Defaults to the paper's 518.

        Raises:
            ValueError: If height and width differ.
        """
        return square_pre_processor(image_size, default=518)

    @staticmethod
    def configure_post_processor() -> ProbabilityPostProcessor:
        """Default post-processor: keeps the order of scores; labels are ``> 0.5`` without validation."""
        return ProbabilityPostProcessor()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Default metrics of a test, none of which needs a threshold."""
        return Evaluator(test_metrics=default_metrics())
