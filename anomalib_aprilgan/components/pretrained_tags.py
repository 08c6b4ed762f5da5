# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What open_clip's registry says of its tags in 3.3.0 and does not yet say in 2.24.0: data, no code.

Source: ``open_clip/pretrained.py`` of open_clip_torch 3.3.0. 2.24.0 knows some weights by a plain URL only and does not
record which of them were trained with QuickGELU. Keys are ``architecture:tag``, the architecture without the
``-quickgelu`` that open_clip appends to some names.
"""

# Repository on the Hugging Face hub of weights that open_clip_torch 2.24.0 fetches from elsewhere.
HUB_REPOSITORIES = {
    "RN101:openai": "timm/resnet101_clip.openai",
    "RN101:yfcc15m": "timm/resnet101_clip.yfcc15m",
    "RN50:cc12m": "timm/resnet50_clip.cc12m",
    "RN50:openai": "timm/resnet50_clip.openai",
    "RN50:yfcc15m": "timm/resnet50_clip.yfcc15m",
    "RN50x16:openai": "timm/resnet50x16_clip.openai",
    "RN50x4:openai": "timm/resnet50x4_clip.openai",
    "RN50x64:openai": "timm/resnet50x64_clip.openai",
    "ViT-B-16-plus-240:laion400m_e31": "timm/vit_base_patch16_plus_clip_240.laion400m_e31",
    "ViT-B-16:laion400m_e31": "timm/vit_base_patch16_clip_224.laion400m_e31",
    "ViT-B-16:laion400m_e32": "timm/vit_base_patch16_clip_224.laion400m_e32",
    "ViT-B-16:metaclip_400m": "timm/vit_base_patch16_clip_224.metaclip_400m",
    "ViT-B-16:metaclip_fullcc": "timm/vit_base_patch16_clip_224.metaclip_2pt5b",
    "ViT-B-16:openai": "timm/vit_base_patch16_clip_224.openai",
    "ViT-B-32:laion2b_e16": "timm/vit_base_patch32_clip_224.laion2b_e16",
    "ViT-B-32:laion400m_e31": "timm/vit_base_patch32_clip_224.laion400m_e31",
    "ViT-B-32:laion400m_e32": "timm/vit_base_patch32_clip_224.laion400m_e32",
    "ViT-B-32:metaclip_400m": "timm/vit_base_patch32_clip_224.metaclip_400m",
    "ViT-B-32:metaclip_fullcc": "timm/vit_base_patch32_clip_224.metaclip_2pt5b",
    "ViT-B-32:openai": "timm/vit_base_patch32_clip_224.openai",
    "ViT-H-14:metaclip_fullcc": "timm/vit_huge_patch14_clip_224.metaclip_2pt5b",
    "ViT-L-14-336:openai": "timm/vit_large_patch14_clip_336.openai",
    "ViT-L-14:laion400m_e31": "timm/vit_large_patch14_clip_224.laion400m_e31",
    "ViT-L-14:laion400m_e32": "timm/vit_large_patch14_clip_224.laion400m_e32",
    "ViT-L-14:metaclip_400m": "timm/vit_large_patch14_clip_224.metaclip_400m",
    "ViT-L-14:metaclip_fullcc": "timm/vit_large_patch14_clip_224.metaclip_2pt5b",
    "ViT-L-14:openai": "timm/vit_large_patch14_clip_224.openai",
}

# Weights that were trained with QuickGELU.
QUICK_GELU_TAGS = frozenset({
    "RN101:openai",
    "RN101:yfcc15m",
    "RN50:cc12m",
    "RN50:openai",
    "RN50:yfcc15m",
    "RN50x16:openai",
    "RN50x4:openai",
    "RN50x64:openai",
    "ViT-B-16:dfn2b",
    "ViT-B-16:metaclip_400m",
    "ViT-B-16:metaclip_fullcc",
    "ViT-B-16:openai",
    "ViT-B-32:laion400m_e31",
    "ViT-B-32:laion400m_e32",
    "ViT-B-32:metaclip_400m",
    "ViT-B-32:metaclip_fullcc",
    "ViT-B-32:openai",
    "ViT-H-14-378:dfn5b",
    "ViT-H-14-worldwide:metaclip2_worldwide",
    "ViT-H-14:dfn5b",
    "ViT-H-14:metaclip_fullcc",
    "ViT-L-14-336:openai",
    "ViT-L-14:dfn2b",
    "ViT-L-14:metaclip_400m",
    "ViT-L-14:metaclip_fullcc",
    "ViT-L-14:openai",
    "ViT-bigG-14:metaclip_fullcc",
})
