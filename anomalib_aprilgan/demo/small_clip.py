# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Contrastive training of the small CLIP: images against sentences, and patches against the same sentences."""

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, SimpleTokenizer
from open_clip.model import CLIP
from safetensors.torch import save
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from anomalib_aprilgan.components.cache import write_atomically
from anomalib_aprilgan.components.clip_tower import residual_stream
from anomalib_aprilgan.components.positions import resize_grid
from anomalib_aprilgan.components.precision import narrow
from anomalib_aprilgan.components.prompts import PromptEnsemble

from .clip_batches import PATCH_SIZE, PairBatch
from .clip_losses import name_loss, patch_loss, rank_loss, state_loss
from .initialisation import initialise_image_tower
from .plain_attention import plain_stream

# open_clip's model config. Small patches and few of everything else: the budget is in pictures seen.
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 128, "layers": 6, "width": 128, "head_width": 32, "patch_size": PATCH_SIZE},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 96, "heads": 3, "layers": 3},
}
HEADS = (2, 4, 5)  # blocks that are taught through a linear map of their own; the last one has CLIP's
IMAGES_AT_ONCE = 16  # from 128 px on, more need arrays so large that the C library takes fresh memory each time
SCALE = 100.0  # of the logits from 40 % of the steps on; CLIP's own ends at 100, too
STATISTICS = (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)  # what the pre-processor of the detectors normalises by


def json_config() -> str:
    """The config as open_clip reads it."""
    return json.dumps(CONFIG, indent=1) + "\n"


class WordTable(nn.Module):
    """Vectors of those tokens that training sentences have; all others share a row of zeros.

    Args:
        sentences (Sequence[str]): All sentences of the training, or their parts.
        width (int): Width of the text tower.
    """

    rows: torch.Tensor

    def __init__(self, sentences: Sequence[str], width: int) -> None:
        super().__init__()
        used = SimpleTokenizer()(list(sentences)).unique()
        rows = torch.zeros(CONFIG["text_cfg"]["vocab_size"], dtype=torch.long)
        rows[used] = torch.arange(1, len(used) + 1)
        self.register_buffer("rows", rows)
        self.table = nn.Embedding(len(used) + 1, width, padding_idx=0)
        nn.init.normal_(self.table.weight[1:], std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Vectors (M, L, W) of token ids (M, L)."""
        vectors: torch.Tensor = self.table(self.rows[tokens])
        return vectors

    def full(self) -> torch.Tensor:
        """The table as open_clip has it: one row for every token, most of them zero, (49408, W)."""
        return self.table.weight.detach()[self.rows]


class SmallCLIP(LightningModule):
    """Trains open_clip's ``CLIP`` on pairs of a good and a defective part.

    Three losses: the pooled feature against the two sentences of its product (normal and anomalous), by itself and in
    comparison within the pair; against the sentences of other products in the batch; and every patch against the two
    sentences, as far as the defect covers it (region-text contrast, as RegionCLIP, arXiv 2112.09106, has it). Some
    inner blocks are taught the patches' part too, through linear maps that are thrown away.

    Args:
        nouns (Sequence[str]): Words by which products are called besides their names.
        steps (int): Optimiser steps, for the learning rate's cosine.
        learning_rate (float): Largest learning rate of AdamW; Muon's is four times as large.
        first_scale (float): Of the logits, at the beginning.
    """

    def __init__(self, nouns: Sequence[str], steps: int, learning_rate: float, first_scale: float) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.steps = steps
        self.learning_rate = learning_rate
        self.first_scale = first_scale
        self.prompts = PromptEnsemble()
        self.tokenizer = SimpleTokenizer()
        self.clip = CLIP(**CONFIG)
        initialise_image_tower(self.clip)
        self.clip.token_embedding.weight.requires_grad_(requires_grad=False)
        self.clip.logit_scale.requires_grad_(requires_grad=False)
        width = CONFIG["vision_cfg"]["width"]
        self.heads = nn.ModuleDict({str(block): nn.Linear(width, CONFIG["embed_dim"]) for block in HEADS})
        prompts = self.prompts
        words = [*prompts.normal_states, *prompts.anomalous_states, *prompts.templates, *nouns]
        self.words = WordTable(words, CONFIG["text_cfg"]["width"])

    def encode_text(self, sentences: Sequence[str]) -> torch.Tensor:
        """Unit vectors (M, E) of M sentences."""
        tokens = self.tokenizer(list(sentences)).to(self.device)  # (M, 77)
        ends = tokens.argmax(dim=1)
        length = int(ends.max()) + 1
        stream = self.words(tokens[:, :length]) + self.clip.positional_embedding[:length]  # (M, L, W)
        mask = torch.full((length, length), float("-inf"), device=self.device).triu(1)
        *_, final = residual_stream(self.clip.transformer.resblocks, stream, mask)
        ends_of_text = final[torch.arange(len(tokens)), ends]  # (M, W)
        features = self.clip.ln_final(ends_of_text) @ self.clip.text_projection  # (M, E)
        return functional.normalize(features.float(), dim=-1)

    def encode_images(self, images: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Unit vectors of images and of some of their patches.

        Args:
            images (torch.Tensor): RGB (N, 3, S, S), uint8.
            seen (torch.Tensor): Places of the patches that the tower is shown, (N, K).

        Returns:
            tuple[torch.Tensor, list[torch.Tensor]]: Pooled (N, E); patches as the inner heads and CLIP itself see them,
                (N, K, E) each, CLIP's last.
        """
        visual: Any = self.clip.visual
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in STATISTICS)
        patches = visual.conv1((images / 255 - mean) / std).flatten(2).transpose(1, 2)  # (N, T, W)
        positions = resize_grid(visual.positional_embedding, images.shape[-1] // PATCH_SIZE)  # (1 + T, W)
        class_token = (visual.class_embedding + positions[0]).expand(len(images), 1, -1)  # (N, 1, W)
        shown = (patches + positions[1:]).gather(1, seen[..., None].expand(-1, -1, patches.shape[-1]))  # (N, K, W)
        stream = visual.ln_pre(torch.cat([class_token, shown], dim=1))  # (N, 1 + K, W)
        stages = list(plain_stream(visual.transformer.resblocks, stream))
        final = visual.ln_post(stages[-1]) @ visual.proj  # (N, 1 + K, E)
        inner = [self.heads[str(block)](stages[block - 1][:, 1:]) for block in HEADS]  # (N, K, E) each
        vectors = [functional.normalize(each.float(), dim=-1) for each in (*inner, final[:, 1:])]
        return functional.normalize(final[:, 0].float(), dim=-1), vectors

    def training_step(self, batch: PairBatch, _index: int) -> None:
        """One step of both optimisers on the sum of the three losses."""
        with sdpa_kernel(SDPBackend.MATH):  # of the sentences: its backward pass is the faster one for few tokens
            loss = self.loss(batch)
        optimizers: Any = self.optimizers()
        schedules: Any = self.lr_schedulers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()

    def loss(self, batch: PairBatch) -> torch.Tensor:
        """Sum of the three losses of a batch, ()."""
        scale = self.first_scale + (SCALE - self.first_scale) * min(1.0, self._steps_done() / (0.4 * self.steps))
        texts = self._texts(batch.names)  # (P, 2, E)
        groups = zip(batch.images.split(IMAGES_AT_ONCE), batch.seen.split(IMAGES_AT_ONCE), strict=True)
        encoded = [self.encode_images(images, seen) for images, seen in groups]
        pooled = torch.cat([each for each, _ in encoded])  # (2P, E)
        stages = [torch.cat(parts) for parts in zip(*(patches for _, patches in encoded), strict=True)]  # (2P, K, E)
        covered = functional.avg_pool2d(batch.masks[:, None].float(), PATCH_SIZE)  # (2P, 1, g, g)
        # A quarter of a patch makes it anomalous.
        target = (covered.flatten(1).gather(1, batch.seen) * 4).clamp(max=1)  # (2P, K)
        of_images = texts.repeat(2, 1, 1)  # (2P, 2, E)
        # Half precision would round the cosines by 0.4 %, which the scale makes large.
        with torch.autocast(self.device.type, enabled=False):
            state = state_loss(pooled, of_images, scale) + rank_loss(pooled, of_images, scale)
            name = name_loss(pooled, texts, batch.names, batch.is_true_name, scale)
            patch = torch.stack([patch_loss(patches, of_images, target, scale) for patches in stages])
        self.log_dict({"state": state, "name": name, "patch": patch.mean()}, prog_bar=True)
        return state + 0.3 * name + 2 * (patch[-1] + patch[:-1].mean())

    def _steps_done(self) -> int:
        """Steps of each optimiser; Lightning counts those of both."""
        return self.global_step // 2

    def _texts(self, names: Sequence[str]) -> torch.Tensor:
        """One normal and one anomalous sentence for each name, in the same template, as unit vectors (P, 2, E)."""
        prompts = self.prompts
        chance = torch.Generator().manual_seed(self._steps_done())  # so that a resumed training says the same
        rows = torch.randint(1 << 30, (3, len(names)), generator=chance).tolist()
        sentences = [
            prompts.templates[template % len(prompts.templates)].replace(
                "{}", states[state % len(states)].replace("{}", name)
            )
            for name, template, normal, anomalous in zip(names, *rows, strict=True)
            for states, state in ((prompts.normal_states, normal), (prompts.anomalous_states, anomalous))
        ]
        texts: torch.Tensor = self.encode_text(sentences).unflatten(0, (len(names), 2))
        return texts  # (P, 2, E)

    def configure_optimizers(self) -> Any:  # ruff: ignore[any-type] - Lightning's union of many
        """Muon for the blocks' matrices, AdamW for all else; five per cent of warm-up, then a cosine to zero."""
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                is_matrix = parameter.ndim == 2 and "resblocks" in name
                (matrices if is_matrix else others if parameter.ndim > 1 else vectors).append(parameter)
        groups = [{"params": others, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
        optimizers = [
            torch.optim.Muon(matrices, 4 * self.learning_rate, 0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups, self.learning_rate, betas=(0.9, 0.98)),
        ]
        schedules = [
            torch.optim.lr_scheduler.OneCycleLR(
                optimizer, optimizer.defaults["lr"], self.steps, pct_start=0.05, cycle_momentum=False
            )
            for optimizer in optimizers
        ]
        return optimizers, schedules

    def save(self, path: str) -> None:
        """Write open_clip's state dict, in half precision, as safetensors.

        What the image tower's blocks multiply with is rounded to bfloat16, as it was in training: so a detector in
        bfloat16 has the same weights as one in float32.
        """
        clip = deepcopy(self.clip)
        narrow(clip.visual, torch.bfloat16)
        state = {name: tensor.half().contiguous() for name, tensor in clip.state_dict().items()}
        state["token_embedding.weight"] = self.words.full().half()
        state.pop("attn_mask", None)
        write_atomically(Path(path), save(state))
