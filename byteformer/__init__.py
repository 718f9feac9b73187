# SPDX-License-Identifier: Apache-2.0
"""ByteFormer for transformers: classifies images and audio from the bytes of their files."""

from .configuration_byteformer import BYTEFORMER_MODES, ByteFormerConfig
from .feature_extraction_byteformer import ByteFormerFeatureExtractor
from .image_processing_byteformer import ByteFormerImageProcessor
from .modeling_byteformer import (
    ByteFormerForAudioClassification,
    ByteFormerForImageClassification,
    ByteFormerModel,
    ByteFormerPreTrainedModel,
)

__all__ = [
    "BYTEFORMER_MODES",
    "ByteFormerConfig",
    "ByteFormerFeatureExtractor",
    "ByteFormerForAudioClassification",
    "ByteFormerForImageClassification",
    "ByteFormerImageProcessor",
    "ByteFormerModel",
    "ByteFormerPreTrainedModel",
]
