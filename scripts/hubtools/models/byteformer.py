"""ByteFormer."""

from typing import Any, Dict

from ..facts import Layout, Package, Shapes, layers_of, rules, same

LAYER = "encoder.layers.{i}."

LAYOUTS = (
    Layout(
        "hub",
        same(
            "embeddings.byte_embeddings.weight",
            "embeddings.token_reduction.weight",
            "embeddings.position_embeddings",
            LAYER + "layer_norm1.{p}",
            LAYER + "self_attn.qkv_proj.{p}",
            LAYER + "self_attn.out_proj.{p}",
            LAYER + "layer_norm2.{p}",
            LAYER + "mlp.fc1.{p}",
            LAYER + "mlp.fc2.{p}",
            LAYER + "downsample.reduction.weight",
            LAYER + "downsample.norm.{p}",
            "layernorm.{p}",
            "classifier.{p}",
        ),
    ),
    Layout(
        "corenet",
        rules(
            ("embeddings.weight", "embeddings.byte_embeddings.weight"),
            ("token_reduction_net.weight", "embeddings.token_reduction.weight"),
            ("pos_embed.pos_embed.pos_embed", "embeddings.position_embeddings"),
            ("transformer.{i}.pre_norm_mha.0.{p}", LAYER + "layer_norm1.{p}"),
            ("transformer.{i}.pre_norm_mha.1.qkv_proj.{p}", LAYER + "self_attn.qkv_proj.{p}"),
            ("transformer.{i}.pre_norm_mha.1.out_proj.{p}", LAYER + "self_attn.out_proj.{p}"),
            ("transformer.{i}.pre_norm_ffn.0.{p}", LAYER + "layer_norm2.{p}"),
            ("transformer.{i}.pre_norm_ffn.1.{p}", LAYER + "mlp.fc1.{p}"),
            ("transformer.{i}.pre_norm_ffn.4.{p}", LAYER + "mlp.fc2.{p}"),
            ("downsamplers.downsample_{i}.reduction.weight", LAYER + "downsample.reduction.weight"),
            ("downsamplers.downsample_{i}.norm.{p}", LAYER + "downsample.norm.{p}"),
            ("post_transformer_norm.{p}", "layernorm.{p}"),
            ("classifier.{p}", "classifier.{p}"),
        ),
    ),
)


def sizes(shapes: Shapes) -> Dict[str, Any]:
    return {
        "vocab_size": shapes["embeddings.byte_embeddings.weight"][0],
        "hidden_size": shapes["embeddings.byte_embeddings.weight"][1],
        "conv_kernel_size": shapes["embeddings.token_reduction.weight"][-1],
        "max_position_embeddings": shapes["embeddings.position_embeddings"][-2],
        "downsample": [f"encoder.layers.{i}.downsample.reduction.weight" in shapes for i in range(layers_of(shapes))],
    }


PACKAGE = Package(
    name="byteformer",
    model_type="byteformer",
    base_prefix="byteformer.",
    config_class="ByteFormerConfig",
    configuration="configuration_byteformer",
    modeling="modeling_byteformer",
    models={
        "AutoModel": "ByteFormerModel",
        "AutoModelForImageClassification": "ByteFormerForImageClassification",
        "AutoModelForAudioClassification": "ByteFormerForAudioClassification",
    },
    processors={
        "AutoImageProcessor": ("image_processing_byteformer", "ByteFormerImageProcessor"),
        "AutoFeatureExtractor": ("feature_extraction_byteformer", "ByteFormerFeatureExtractor"),
    },
    layouts=LAYOUTS,
    sizes=sizes,
)
