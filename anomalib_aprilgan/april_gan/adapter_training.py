# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Training of the linear adapters on annotated products, as a model of anomalib.

Source: paper section 2.2; ``train.py`` of github.com/ByChelsea/VAND-APRIL-GAN.
"""

import logging
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

from anomalib_aprilgan.components.anomaly_maps import probability, text_probability
from anomalib_aprilgan.components.embedded import AUTO, settings_of
from anomalib_aprilgan.components.prompts import PromptEnsemble
from anomalib_aprilgan.components.text_encoder import text_features
from anomalib_aprilgan.detection.checkpoint import only_clip, own_entry, without_clip
from anomalib_aprilgan.detection.evaluation import default_metrics, raw_scores_first
from anomalib_aprilgan.detection.leak import find_leaks, leak_mark, warn_of_leaks
from anomalib_aprilgan.detection.plain_data import plain_layers, plain_prompts
from anomalib_aprilgan.detection.post_processor import ProbabilityPostProcessor
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor
from anomalib_aprilgan.detection.training_runs import is_about_to_forget, with_data_of

from .adapter_losses import stage_losses
from .adapters import AdapterMetadata, StageAdapters
from .checkpoint import adopt, describe
from .torch_model import FROM_CHECKPOINT, AprilGANModel

logger = logging.getLogger(__name__)

CHECKPOINT_KEY = "april_gan_adapters"
FILE_NAME = "adapters.safetensors"
DATA_REMEDY = "Take AuxiliaryData, with masks, or with synthetic=True where there are none."


class AprilGANAdapters(AnomalibModule):
    """Train one linear adapter a stage; CLIP stays frozen.

    The loss is focal plus Dice of every stage's map, summed over stages, each a mean over the images of the batch.
    After training ``adapters.safetensors`` lies in the run's folder, ready for ``AprilGAN(adapters=PATH)``.

    Args:
        backbone (str): See :class:`AprilGANModel`, as all up to ``precision``.
        pretrained (str | None): Weights of CLIP. Defaults as in :class:`AprilGAN`, as the next two.
        image_size (int | None): Side in pixels of the model's input.
        layers (Sequence[int] | None): Stages to train an adapter for.
        adapters (str | Path | None): File of adapters to start from; None starts from random ones.
        quick_gelu (bool | None): Activation of CLIP.
        prompts (PromptEnsemble | None): States and templates.
        precision (str): Of the frozen image tower; the adapters train in float32 whatever the trainer's precision.
        learning_rate (float): Of Adam.
        betas (Sequence[float]): Of Adam.
        pre_processor (nn.Module | bool): Pre-processor, or whether to use the default.
        post_processor (nn.Module | bool): Post-processor, or whether to use the default.
        evaluator (Evaluator | bool): Evaluator, or whether to use the default.
        visualizer (Visualizer | bool): Visualizer, or whether to use the default.

    Attributes:
        adapters_path (Path | None): The file written after training.

    Raises:
        ValueError: If the torch model refuses an argument.
        WeightsNotFoundError: If CLIP's weights are neither here nor to be had.
    """

    model: AprilGANModel

    def __init__(
        self,
        backbone: str = "ViT-L-14-336",
        pretrained: str | None = AUTO,
        image_size: int | None = None,
        layers: Sequence[int] | None = None,
        adapters: str | Path | None = None,
        quick_gelu: bool | None = None,
        prompts: PromptEnsemble | None = None,
        precision: str = "fp32",
        learning_rate: float = 1e-3,
        betas: Sequence[float] = (0.5, 0.999),
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        # The parent keeps these names as hyperparameters: plain data load with weights_only=True.
        chosen = settings_of(backbone).unless_given(pretrained, image_size, layers)
        pretrained, image_size, layers = chosen.pretrained, chosen.image_size, plain_layers(chosen.layers, "layers")
        betas = list(betas)
        if len(betas) != 2:
            msg = f"betas={betas} must be two numbers, such as [0.5, 0.999]."
            raise ValueError(msg)
        adapters = None if adapters is None else str(adapters)
        prompts = plain_prompts(prompts)
        if pre_processor is True:
            pre_processor = CLIPPreProcessor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = AprilGANModel(
            backbone=backbone,
            pretrained=pretrained,
            image_size=image_size,
            layers=layers,
            adapters=adapters or FROM_CHECKPOINT,
            quick_gelu=quick_gelu,
            prompts=prompts,
            precision=precision,
        )
        if adapters is None:
            self.model.adapters = StageAdapters(self.model.clip.widths, self.model.clip.embed_dim)
        # What a checkpoint must not overrule; where these are None, the model takes the checkpoint's.
        self._given = {"prompts": prompts, "quick_gelu": quick_gelu}
        self.learning_rate = learning_rate
        self.betas = (betas[0], betas[1])
        self.adapters_path: Path | None = None
        self._resumed_from: str | Path | None = None
        self._texts: dict[str, torch.Tensor] = {}

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:  # ruff: ignore[any-type] - see below
        """Focal plus Dice loss of an ``AuxiliaryBatch``, or of any batch with its fields.

        Args:
            batch (Any): ``image`` (N, 3, S, S) preprocessed, ``gt_mask`` (N, S, S), ``class_name`` (N names).
            batch_idx (int): Not used.

        Returns:
            torch.Tensor: A scalar.

        Raises:
            ValueError: If the data have no masks or no class names.
        """
        del batch_idx
        if batch.gt_mask is None:
            msg = f"The data have no masks to train on. {DATA_REMEDY}"
            raise ValueError(msg)
        _, tokens = self.model.encode(batch.image)
        # Half precision, which the trainer may have switched on, knows no logarithm of small probabilities.
        with torch.autocast(batch.image.device.type, enabled=False):
            differences = self.model.text_differences(tokens, self._text_of(batch))  # (N, L, S, S)
            target = (batch.gt_mask > 0.5).reshape(len(differences), *differences.shape[-2:])  # (N, S, S)
            focal, dice = stage_losses(differences, target)
        if self._trainer is not None:
            losses = {"focal": focal, "dice": dice}
            self.log_dict(losses, on_step=True, prog_bar=True, batch_size=len(differences))
        return focal + dice

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:  # ruff: ignore[any-type] - as above
        """Judge a batch zero-shot, each image by the words for its own class."""
        del args, kwargs
        pooled, tokens = self.model.encode(batch.image)
        text = self._text_of(batch)
        with torch.autocast(batch.image.device.type, enabled=False):
            anomaly_map = probability(self.model.text_differences(tokens, text)).mean(dim=1)  # (N, S, S)
            pred_score = text_probability(pooled, text)  # (N,)
        return batch.update(pred_score=pred_score, anomaly_map=anomaly_map)

    def test_step(self, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> Any:  # ruff: ignore[any-type] - as above
        """Judge a batch zero-shot, as in validation."""
        return self.validation_step(batch, batch_idx, *args, **kwargs)

    def _text_of(self, batch: Any) -> torch.Tensor:  # ruff: ignore[any-type] - as above
        """Text features of each image's class, (N, 2, E); each class is encoded once."""
        if not hasattr(batch, "class_name"):
            msg = f"{type(batch).__name__} does not say what its images show. {DATA_REMEDY}"
            raise ValueError(msg)
        for name in batch.class_name:
            if name not in self._texts:
                self._texts[name] = text_features(self.model.source, self.model.prompts, name)
        return torch.stack([self._texts[name] for name in batch.class_name]).to(batch.image.device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on the adapters alone."""
        return torch.optim.Adam(self.model.adapters.parameters(), lr=self.learning_rate, betas=self.betas)

    def on_fit_start(self) -> None:
        """Add the data to those that these adapters saw in earlier runs: none of them must be tested on.

        Raises:
            RuntimeError: If adapters that were to come from a checkpoint have not come.
        """
        if isinstance(self.model.adapters, StageAdapters) and not self.model.adapters.is_loaded:
            msg = f"adapters={FROM_CHECKPOINT!r} needs ckpt_path. To start anew, leave adapters out or name a file."
            raise RuntimeError(msg)
        self._resumed_from = self.trainer.ckpt_path
        self.model.trained_on = with_data_of(self.model.trained_on, getattr(self.trainer, "datamodule", None))

    def on_test_start(self) -> None:
        """Tell if the adapters have seen the held-out categories, in an earlier run."""
        warn_of_leaks("adapters", self.model.trained_on, self._trainer)

    def on_test_epoch_end(self) -> None:
        """Mark results of adapters that have seen the data under test."""
        if find_leaks(self.model.trained_on, self._trainer):
            self.log(leak_mark("adapters"), 1.0)

    def on_train_end(self) -> None:
        """Write the adapters with their metadata, once however many processes train."""
        if not self.trainer.is_global_zero:
            return
        path = Path(self.trainer.default_root_dir) / FILE_NAME
        self.save_adapters(path)
        self.adapters_path = path
        logger.info("Adapters written to %s: use them with --model.adapters %s", path, path)

    def save_adapters(self, path: str | Path) -> None:
        """Write the adapters as safetensors, with what they belong to.

        Raises:
            OSError: If the file cannot be written.
            ValueError: If the training has diverged.
        """
        assert isinstance(self.model.adapters, StageAdapters)  # this module builds no others
        source = self.model.source
        metadata = AdapterMetadata(
            backbone=source.backbone,
            pretrained=source.pretrained,
            quick_gelu=source.quick_gelu,
            layers=self.model.layers,
            image_size=self.model.image_size,
            trained_on=self.model.trained_on,
        )
        self.model.adapters.save(path, metadata)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen CLIP out, and note what belongs to it."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] = without_clip(checkpoint["state_dict"])
        checkpoint["hyper_parameters"]["adapters"] = FROM_CHECKPOINT
        checkpoint["hyper_parameters"]["quick_gelu"] = self.model.source.quick_gelu
        checkpoint[CHECKPOINT_KEY] = describe(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this CLIP; it settles activation and prompts unless the user has.

        Raises:
            ValueError: If it is of another model, of another CLIP or of other prompts; differences are named.
        """
        saved = own_entry(checkpoint, CHECKPOINT_KEY, self.name)
        super().on_load_checkpoint(checkpoint)
        if is_about_to_forget(self._trainer, self._resumed_from):
            logger.info("Testing the adapters just trained, and not those of %s again.", self._resumed_from)
            self._resumed_from = None
            checkpoint["state_dict"] = self.state_dict()
            return
        adopt(self.model, saved, self._given)
        self._texts.clear()  # of another activation or other prompts
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **only_clip(self.state_dict())}

    def configure_callbacks(self) -> list[Callback]:
        """Components; metrics come before scores are rescaled."""
        return raw_scores_first(super().configure_callbacks())

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No special arguments for the trainer."""
        return {}

    @property
    def learning_type(self) -> LearningType:
        """One-class, the type for which anomalib's engine really trains."""
        return LearningType.ONE_CLASS

    @staticmethod
    def configure_post_processor() -> ProbabilityPostProcessor:
        """Default post-processor: keeps the order of scores."""
        return ProbabilityPostProcessor()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Metrics of the held-out categories, after every epoch and at the end."""
        return Evaluator(val_metrics=default_metrics(), test_metrics=default_metrics())
