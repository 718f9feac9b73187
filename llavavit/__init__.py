# SPDX-License-Identifier: Apache-2.0
"""LLaVA-ViT for transformers: a vision transformer for images, video and sparse selections of video patches."""

from .configuration_llava_vit import LlavaViTConfig
from .image_processing_llava_vit import LlavaViTImageProcessor
from .modeling_llava_vit import (
    LlavaViTAttention,
    LlavaViTBackbone,
    LlavaViTEmbeddings,
    LlavaViTEncoder,
    LlavaViTEncoderLayer,
    LlavaViTForImageClassification,
    LlavaViTForVideoClassification,
    LlavaViTModel,
    LlavaViTModelOutput,
    LlavaViTPreTrainedModel,
    pack,
    unpack,
)
from .video_processing_llava_vit import LlavaViTVideoProcessor

__all__ = [
    "LlavaViTAttention",
    "LlavaViTBackbone",
    "LlavaViTConfig",
    "LlavaViTEmbeddings",
    "LlavaViTEncoder",
    "LlavaViTEncoderLayer",
    "LlavaViTForImageClassification",
    "LlavaViTForVideoClassification",
    "LlavaViTImageProcessor",
    "LlavaViTModel",
    "LlavaViTModelOutput",
    "LlavaViTPreTrainedModel",
    "LlavaViTVideoProcessor",
    "pack",
    "unpack",
]
