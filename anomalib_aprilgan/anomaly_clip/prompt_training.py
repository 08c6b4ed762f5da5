# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Training of AnomalyCLIP's prompts on annotated products, as a model of anomalib.

Source: paper section 3.4; ``train.py`` of github.com/zqhang/AnomalyCLIP.
"""

import logging
import math
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

from anomalib_aprilgan.components.embedded import AUTO, prompt_settings_of, settings_of
from anomalib_aprilgan.components.trained_file import TrainedWith
from anomalib_aprilgan.detection.checkpoint import only_clip, own_entry, without_clip
from anomalib_aprilgan.detection.evaluation import default_metrics, raw_scores_first
from anomalib_aprilgan.detection.leak import find_leaks, leak_mark, warn_of_leaks
from anomalib_aprilgan.detection.plain_data import plain_layers
from anomalib_aprilgan.detection.post_processor import ProbabilityPostProcessor
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor
from anomalib_aprilgan.detection.training_runs import is_about_to_forget, with_data_of

from .checkpoint import adopt, describe
from .prompt_encoder import PromptEncoder
from .prompt_losses import image_loss, pixel_loss
from .torch_model import FROM_CHECKPOINT, UNTRAINED, AnomalyCLIPModel

logger = logging.getLogger(__name__)

CHECKPOINT_KEY = "anomaly_clip_prompts"
FILE_NAME = "prompts.safetensors"


class AnomalyCLIPPrompts(AnomalibModule):
    """Learn the prompts of AnomalyCLIP; CLIP stays frozen.

    The loss is the cross entropy of the image's score, plus focal and both Dice losses of every stage's map.
    After training ``prompts.safetensors`` lies in the run's folder, ready for ``AnomalyCLIP(prompt_weights=PATH)``.

    Args:
        backbone (str): See :class:`AnomalyCLIPModel`, as all up to ``precision``.
        pretrained (str | None): Weights of CLIP. Defaults as in :class:`AnomalyCLIP`, as all up to
            ``deep_prompt_depth``.
        image_size (int | None): Side in pixels of the model's input.
        layers (Sequence[int] | None): Blocks whose patch features the prompts learn from.
        dpam_layers (int | None): How many of the last blocks have value-value attention.
        prompt_length (int | None): Number of learned vectors before the words.
        deep_prompt_length (int | None): Number of learned vectors in between blocks of the text tower.
        deep_prompt_depth (int | None): Number of blocks of the text tower with learned vectors.
        start_from (str | Path | None): File of prompts to start from, ``mvtec`` or ``visa`` for the authors' own, or
            ``embedded`` for those of ``aprilgan-tiny``; None starts from random ones.
        sigma (float): Standard deviation in pixels of the Gaussian that smooths maps in validation and test.
        precision (str): Of the frozen image tower; the prompts train in float32 whatever the trainer's precision.
        image_loss_only (bool): Learn from labels alone, without masks.
        pixel_weight (float): Of the losses of the maps. The published prompts were trained on four copies of the last
            block: with one, that is a weight of 16.
        half_gradients (bool): Round the gradients of deep prompts to half precision, as the authors' code does; small
            ones vanish. Switch it off where deep prompts do not learn.
        learning_rate (float): Of Adam.
        betas (Sequence[float]): Of Adam.
        pre_processor (nn.Module | bool): Pre-processor, or whether to use the default.
        post_processor (nn.Module | bool): Post-processor, or whether to use the default.
        evaluator (Evaluator | bool): Evaluator, or whether to use the default.
        visualizer (Visualizer | bool): Visualizer, or whether to use the default.

    Attributes:
        prompts_path (Path | None): The file written after training.
        has_learned (bool): Whether there are prompts to test: from a file or a checkpoint, or since a training began.

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
        start_from: str | Path | None = None,
        sigma: float = 4.0,
        precision: str = "fp32",
        image_loss_only: bool = False,
        pixel_weight: float = 4.0,
        half_gradients: bool = True,
        learning_rate: float = 1e-3,
        betas: Sequence[float] = (0.5, 0.999),
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
        layers, betas = plain_layers(layers, "layers"), list(betas)
        if len(betas) != 2:
            msg = f"betas={betas} must be two numbers, such as [0.5, 0.999]."
            raise ValueError(msg)
        if not isinstance(pixel_weight, (int, float)) or not 0 <= pixel_weight < math.inf:
            msg = f"pixel_weight={pixel_weight!r} must be a finite number, 0 or positive; the paper's is 4."
            raise ValueError(msg)
        start_from = None if start_from is None else str(start_from)
        if pre_processor is True:
            pre_processor = CLIPPreProcessor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = AnomalyCLIPModel(
            backbone,
            pretrained,
            *settings,
            prompt_weights=start_from or FROM_CHECKPOINT,
            sigma=sigma,
            precision=precision,
        )
        if start_from is None:
            self.model.prompts.reset()
        self.image_loss_only = image_loss_only
        self.pixel_weight = pixel_weight
        self.half_gradients = half_gradients
        self.learning_rate = learning_rate
        self.betas = (betas[0], betas[1])
        self.has_learned = start_from not in {None, FROM_CHECKPOINT}
        self.prompts_path: Path | None = None
        self._resumed_from: str | Path | None = None
        # In a list, so that neither checkpoints nor other processes nor the trainer's precision take notice of it.
        self._encoders: list[PromptEncoder] = []

    @property
    def encoder(self) -> PromptEncoder:
        """The frozen text tower, where the prompts are."""
        if not self._encoders:
            self._encoders.append(PromptEncoder(self.model.source, self.model.prompts.length))
        return self._encoders[0].to(self.model.prompts.context.device)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:  # ruff: ignore[any-type] - see below
        """Loss of an ``AuxiliaryBatch``, or of any batch with its fields.

        Args:
            batch (Any): ``image`` (N, 3, S, S) preprocessed, ``gt_label`` (N,), and, unless only image labels
                count, ``gt_mask`` (N, S, S).
            batch_idx (int): Not used.

        Returns:
            torch.Tensor: A scalar.

        Raises:
            ValueError: If masks are needed and the data have none.
        """
        del batch_idx
        pooled, patches = self.model.encode(batch.image)
        # Half precision, which the trainer may have switched on, knows no logarithm of small probabilities.
        with torch.autocast(batch.image.device.type, enabled=False):
            text = self.encoder(self.model.prompts, half_gradients=self.half_gradients)  # (2, E)
            logits = self.model.logits(pooled, patches, text)
            losses = {"image_loss": image_loss(logits.image, batch.gt_label)}
            if not self.image_loss_only:
                loss = pixel_loss(logits.patches, _target(batch), self.model.upsampling)
                losses["pixel_loss"] = self.pixel_weight * loss
        if self._trainer is not None:
            self.log_dict(losses, on_step=True, prog_bar=True, batch_size=len(batch.image))
        return torch.stack(list(losses.values())).sum()

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:  # ruff: ignore[any-type] - as above
        """Judge a batch as AnomalyCLIP will with these prompts."""
        del args, kwargs
        verdict = self.model(batch.image)
        return batch.update(pred_score=verdict.pred_score, anomaly_map=verdict.anomaly_map)

    def test_step(self, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> Any:  # ruff: ignore[any-type] - as above
        """Judge a batch, as in validation."""
        return self.validation_step(batch, batch_idx, *args, **kwargs)

    # Lightning is in inference mode here; tensors made in it could never be overwritten by a checkpoint.
    @torch.inference_mode(mode=False)
    def on_validation_start(self) -> None:
        """Read the prompts as they are now."""
        self.model.read_prompts(self.encoder)

    def on_predict_start(self) -> None:
        """Read the prompts as they are now.

        Raises:
            RuntimeError: If nothing has been learned yet.
        """
        if not self.has_learned:
            raise RuntimeError(UNTRAINED)
        self.on_validation_start()

    def on_test_start(self) -> None:
        """Read the prompts as they are now, and tell if they have seen the data under test.

        Raises:
            RuntimeError: If nothing has been learned yet.
        """
        self.on_predict_start()
        warn_of_leaks("prompts", self.model.trained_on, self._trainer)

    def on_test_epoch_end(self) -> None:
        """Mark results of prompts that have seen the data under test."""
        if find_leaks(self.model.trained_on, self._trainer):
            self.log(leak_mark("prompts"), 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on the prompts alone."""
        return torch.optim.Adam(self.model.prompts.parameters(), lr=self.learning_rate, betas=self.betas)

    def on_fit_start(self) -> None:
        """Add the data to those that these prompts saw in earlier runs: none of them must be tested on.

        Raises:
            RuntimeError: If prompts that were to come from a checkpoint have not come.
        """
        if not self.model.prompts.is_loaded:
            msg = f"start_from={FROM_CHECKPOINT!r} needs ckpt_path. To start anew, leave start_from out or name a file."
            raise RuntimeError(msg)
        self.has_learned = True
        self._resumed_from = self.trainer.ckpt_path
        self.model.trained_on = with_data_of(self.model.trained_on, getattr(self.trainer, "datamodule", None))

    def on_train_end(self) -> None:
        """Read the prompts for the last time, and write them, once however many processes train."""
        self.model.read_prompts(self.encoder)
        if not self.trainer.is_global_zero:
            return
        path = Path(self.trainer.default_root_dir) / FILE_NAME
        self.save_prompts(path)
        self.prompts_path = path
        logger.info("Prompts written to %s: use them with --model.prompt_weights %s", path, path)

    def save_prompts(self, path: str | Path) -> None:
        """Write the prompts as safetensors, with what they belong to.

        Raises:
            OSError: If the file cannot be written.
            ValueError: If the training has diverged.
        """
        source = self.model.source
        trained_with = TrainedWith(
            backbone=source.backbone,
            pretrained=source.pretrained,
            quick_gelu=source.quick_gelu,
            layers=self.model.layers,
            image_size=self.model.image_size,
            trained_on=self.model.trained_on,
            dpam_layers=self.model.dpam_layers,
        )
        self.model.prompts.save(path, trained_with)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen CLIP out, and note what belongs to it; what the prompts say now goes with them."""
        super().on_save_checkpoint(checkpoint)
        with torch.no_grad():
            text_features = self.encoder(self.model.prompts)
        checkpoint["state_dict"] = {**without_clip(checkpoint["state_dict"]), "model.text_features": text_features}
        checkpoint["hyper_parameters"]["start_from"] = FROM_CHECKPOINT
        checkpoint[CHECKPOINT_KEY] = describe(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this CLIP, whose activation it settles.

        Raises:
            ValueError: If it is of another model, of another CLIP or of other prompts; differences are named.
        """
        saved = own_entry(checkpoint, CHECKPOINT_KEY, self.name)
        super().on_load_checkpoint(checkpoint)
        if is_about_to_forget(self._trainer, self._resumed_from):
            logger.info("Testing the prompts just trained, and not those of %s again.", self._resumed_from)
            self._resumed_from = None
            checkpoint["state_dict"] = self.state_dict()
            return
        adopt(self.model, saved)
        self.has_learned = True
        self._encoders.clear()  # of another activation
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


def _target(batch: Any) -> torch.Tensor:  # ruff: ignore[any-type] - as above
    """The masks of a batch, (N, S, S), bool."""
    if batch.gt_mask is None:
        msg = "The data have no masks: set image_loss_only=True to learn from labels alone."
        raise ValueError(msg)
    mask: torch.Tensor = batch.gt_mask > 0.5
    return mask.reshape(len(batch.image), *mask.shape[-2:])
