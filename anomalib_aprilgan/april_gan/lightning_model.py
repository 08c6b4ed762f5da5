# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""APRIL-GAN as a model of anomalib: zero- and few-shot detection under its Engine."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from torch import nn

from anomalib_aprilgan.components.embedded import AUTO, embedded_adapters, settings_of
from anomalib_aprilgan.components.prompts import PromptEnsemble
from anomalib_aprilgan.components.tiles import check_tiles
from anomalib_aprilgan.data.image_guard import ImageFileGuard
from anomalib_aprilgan.data.references import draw_references, list_candidates, list_source, load_references
from anomalib_aprilgan.detection.checkpoint import only_clip, own_entry, warn_of_unused, without_clip
from anomalib_aprilgan.detection.evaluation import default_metrics, raw_scores_first, tell_of_heat_maps
from anomalib_aprilgan.detection.export import SelfDescribingExport
from anomalib_aprilgan.detection.leak import (
    REFERENCES_MARK,
    data_under_test,
    find_leaks,
    leak_mark,
    references_under_test,
    warn_of_leaks,
    warn_of_references,
)
from anomalib_aprilgan.detection.plain_data import plain_layers, plain_paths, plain_prompts
from anomalib_aprilgan.detection.post_processor import ProbabilityPostProcessor
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor, square_pre_processor

from .adapters import StageAdapters
from .checkpoint import adopt, describe, make_room_for_adapters, metadata, unused_arguments
from .published_adapters import choose_for, find_adapters, published_for
from .torch_model import FROM_CHECKPOINT, AprilGANModel

logger = logging.getLogger(__name__)

DEFAULT_CLASS_NAME = "object"
# Our own entry in checkpoints.
CHECKPOINT_KEY = "april_gan"


class AprilGAN(SelfDescribingExport, AnomalibModule):  # type: ignore[misc]  # to_onnx is anomalib's, not Lightning's
    """APRIL-GAN: zero- and few-shot anomaly detection with CLIP.

    Args:
        class_name (str | None): Name of the product, used in the prompts. Defaults to the datamodule's category, else
            its name, else ``object``.
        k_shot (int): Number of normal references; 0 is zero-shot.
        few_shot_source (str | Path | list[str | Path] | None): Folder or list of reference images. Defaults to the
            normal training images of the datamodule.
        backbone (str): See :class:`AprilGANModel`, as all up to ``tiles``.
        pretrained (str | None): Weights of CLIP. Defaults to ``auto``: ``openai``, or ``embedded`` for the backbone
            ``aprilgan-tiny``.
        image_size (int | None): Side in pixels of the model's input. Defaults to 518, or what suits ``aprilgan-tiny``,
            times ``tiles``.
        layers (Sequence[int] | None): Stages compared with the text. Defaults to the paper's, or those of
            ``aprilgan-tiny``.
        few_shot_layers (Sequence[int] | None): Stages compared with references.
        adapters (str | Path | None): Trained adapters, see :class:`AprilGANModel`. Defaults to ``auto``: with the
            paper's backbone those of the authors that were not trained on the dataset under test, with
            ``aprilgan-tiny`` the bundled ones, else none.
        quick_gelu (bool | None): Activation of CLIP.
        prompts (PromptEnsemble | None): States and templates.
        precision (str): Of the frozen image tower.
        coreset_ratio (float): Part of the references' patches to keep.
        tiles (int): 2 looks at images in 2 x 2 tiles, each by itself, for small defects: four times the work, and more
            with references. The text score is then the largest of the tiles'.
        reference_seed (int): Seed of the draw of references.
        pre_processor (nn.Module | bool): Pre-processor, or whether to use the default.
        post_processor (nn.Module | bool): Post-processor, or whether to use the default.
        evaluator (Evaluator | bool): Evaluator, or whether to use the default.
        visualizer (Visualizer | bool): Visualizer, or whether to use the default.

    Attributes:
        reference_paths (list[str]): The references in use.

    Raises:
        ValueError: If ``k_shot`` is negative, or the torch model refuses an argument.
        WeightsNotFoundError: If CLIP's weights are neither here nor to be had.

    Example:
        >>> model = AprilGAN("bottle", backbone="ViT-S-32-alt", pretrained=None, image_size=64, layers=[5, 10])
        >>> model.learning_type
        <LearningType.ZERO_SHOT: 'zero_shot'>
    """

    model: AprilGANModel

    def __init__(
        self,
        class_name: str | None = None,
        k_shot: int = 0,
        few_shot_source: str | Path | list[str | Path] | None = None,
        backbone: str = "ViT-L-14-336",
        pretrained: str | None = AUTO,
        image_size: int | None = None,
        layers: Sequence[int] | None = None,
        few_shot_layers: Sequence[int] | None = None,
        adapters: str | Path | None = AUTO,
        quick_gelu: bool | None = None,
        prompts: PromptEnsemble | None = None,
        precision: str = "fp32",
        coreset_ratio: float = 1.0,
        tiles: int = 1,
        reference_seed: int = 0,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if not isinstance(k_shot, int) or isinstance(k_shot, bool) or k_shot < 0:
            msg = f"k_shot={k_shot!r} must be 0 (zero-shot) or the number of normal references."
            raise ValueError(msg)
        # The parent keeps these names as hyperparameters: plain data load with weights_only=True.
        few_shot_source = plain_paths(few_shot_source)
        chosen = settings_of(backbone).for_tiles(check_tiles(tiles)).unless_given(pretrained, image_size, layers)
        pretrained, image_size, layers = chosen.pretrained, chosen.image_size, plain_layers(chosen.layers, "layers")
        few_shot_layers = None if few_shot_layers is None else plain_layers(few_shot_layers, "few_shot_layers")
        adapters = None if adapters is None else str(adapters)
        prompts = plain_prompts(prompts)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor((image_size, image_size))
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        # Which of the authors' adapters is settled when the data are known; a checkpoint may bring others before.
        published = published_for(backbone, pretrained, layers, quick_gelu) if adapters == AUTO else None
        if adapters == AUTO:
            adapters = FROM_CHECKPOINT if published else embedded_adapters(backbone, pretrained, layers)
        self.model = AprilGANModel(
            backbone=backbone,
            pretrained=pretrained,
            image_size=image_size,
            layers=layers,
            few_shot_layers=few_shot_layers,
            adapters=adapters,
            quick_gelu=published.quick_gelu if published else quick_gelu,
            prompts=prompts,
            precision=precision,
            coreset_ratio=coreset_ratio,
            tiles=tiles,
        )
        self.chooses_adapters = published is not None
        self.class_name = class_name
        # What a checkpoint must not overrule; the attributes of these names may change with one.
        shots = k_shot or None
        self._given = {"k_shot": shots, "class_name": class_name, "prompts": prompts, "quick_gelu": quick_gelu}
        self.k_shot = k_shot
        self.few_shot_source = few_shot_source
        self.reference_seed = reference_seed
        self.reference_paths: list[str] = []
        self._references: list[tuple[Path, int, int]] = []
        self._is_restored = False
        if few_shot_source is not None and not k_shot:
            logger.warning("few_shot_source is not used: k_shot is 0. Set k_shot to the number of references.")

    def setup(self, stage: str) -> None:
        """Settle class name and references, unless a trainer will have it done later.

        Lightning calls this before it restores a checkpoint, and sometimes without the datamodule that a later run
        has. So under a trainer all is settled when a run starts, each time anew.
        """
        del stage
        if self._trainer is None:
            self._settle()

    def on_validation_start(self) -> None:
        """Settle class name and references."""
        self._settle()

    def on_predict_start(self) -> None:
        """Settle class name and references, and tell if references are among the images."""
        self._settle()
        warn_of_references(self.reference_paths, self._trainer)

    def on_test_start(self) -> None:
        """Settle class name and references, and tell if adapters or references have seen the data under test."""
        self._settle()
        warn_of_leaks("adapters", self.model.trained_on, self._trainer)
        warn_of_references(self.reference_paths, self._trainer)

    def on_test_epoch_end(self) -> None:
        """Mark results of adapters or references that have seen the data under test."""
        if find_leaks(self.model.trained_on, self._trainer):
            self.log(leak_mark("adapters"), 1.0)
        if references_under_test(self.reference_paths, self._trainer):
            self.log(REFERENCES_MARK, 1.0)

    def on_test_end(self) -> None:
        """Tell where the heat maps are."""
        tell_of_heat_maps(self.visualizer)

    on_predict_end = on_test_end

    # Lightning is in inference mode here; tensors made in it could never be overwritten by a checkpoint.
    @torch.inference_mode(mode=False)
    def _settle(self, *, keeps_references: bool = False) -> None:
        if self._is_restored:
            return  # a restored model keeps what its checkpoint says
        has_them = keeps_references and self.model.is_few_shot
        if self.few_shot_source is not None and not has_them:
            list_source(self.few_shot_source)  # a wrong folder is told before any work, even if k_shot is 0
        self._choose_adapters()
        class_name, drawn = self._find_class_name(), self._references if has_them else self._draw_references()
        is_new, are_new = class_name != self.model.class_name, drawn != self._references
        # In one call, which changes all or nothing: never one product's words with another's references.
        self.model.setup(class_name if is_new else None, self._load(drawn) if are_new else None)
        self._references = drawn
        if is_new:
            logger.info("Looking for anomalies of class '%s'.", class_name)
        if are_new:
            self.reference_paths = [str(path) for path, *_ in drawn]
            logger.info("References: %s", ", ".join(self.reference_paths))

    def _choose_adapters(self) -> None:
        """Take published adapters that have not seen the data under test, unless the choice is made."""
        if not self.chooses_adapters:
            return
        names = data_under_test(self._trainer)
        choice = choose_for(*names)
        if self.model.trained_on is None or (names and choice != self.model.trained_on):
            self.model.use_adapters(find_adapters(choice))

    @property
    def _datamodule(self) -> Any:  # ruff: ignore[any-type] - Lightning's trainer takes any
        return getattr(self._trainer, "datamodule", None)

    def _find_class_name(self) -> str:
        of_data = (getattr(self._datamodule, name, None) for name in ("category", "name"))  # category "" in a Folder
        return next((name for name in (self.class_name, *of_data, self.model.class_name) if name), DEFAULT_CLASS_NAME)

    def _draw_references(self) -> list[tuple[Path, int, int]]:
        """Those to use and their versions, drawn anew in every run; in a run without data, those of an earlier one."""
        had_data = self.few_shot_source is None and self._datamodule is None and self.model.is_few_shot
        if not self.k_shot or had_data:
            return self._references
        candidates = list_candidates(self.few_shot_source, self._datamodule, self.k_shot)
        paths = draw_references(candidates, self.k_shot, self.reference_seed)
        return [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths]

    def _load(self, references: list[tuple[Path, int, int]]) -> torch.Tensor:
        transform = self.pre_processor.transform if isinstance(self.pre_processor, PreProcessor) else None
        side = self.pre_processor.image_size if isinstance(self.pre_processor, CLIPPreProcessor) else None
        return load_references([path for path, *_ in references], transform, side)

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
        self._settle(keeps_references=True)  # perhaps nothing was judged so far
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] = without_clip(self.state_dict())
        hyper_parameters = checkpoint["hyper_parameters"]
        if isinstance(self.model.adapters, StageAdapters):
            hyper_parameters["adapters"] = FROM_CHECKPOINT
        hyper_parameters["quick_gelu"] = self.model.source.quick_gelu
        hyper_parameters["few_shot_source"] = None  # the bank holds the references
        references = {"reference_paths": self.reference_paths, "reference_seed": self.reference_seed}
        checkpoint[CHECKPOINT_KEY] = {**describe(self.model), **references}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this CLIP, take over what it says, and tell which arguments it overrules.

        Raises:
            ValueError: If it is of another model, or of another CLIP; differences are named.
        """
        saved = own_entry(checkpoint, CHECKPOINT_KEY, self.name)
        warn_of_unused(unused_arguments(self.model, self.hparams, saved, checkpoint["state_dict"]))
        adopt(self.model, {**saved, "k_shot": len(saved["reference_paths"])}, self._given)
        super().on_load_checkpoint(checkpoint)
        make_room_for_adapters(self.model, checkpoint["state_dict"], is_free=self.chooses_adapters)
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **only_clip(self.state_dict())}
        self.class_name = self.model.class_name
        self.reference_paths = list(saved["reference_paths"])
        self.k_shot = len(self.reference_paths)
        self.few_shot_source = None  # as in the checkpoint
        self._is_restored = True

    def export_metadata(self) -> dict[str, str]:
        """What all verdicts depend on, with JSON for values; the model must be set up."""
        return metadata(self.model, self.reference_paths)

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No special arguments for the trainer."""
        return {}

    @property
    def learning_type(self) -> LearningType:
        """Zero-shot without references, few-shot with."""
        return LearningType.FEW_SHOT if self.k_shot else LearningType.ZERO_SHOT

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
