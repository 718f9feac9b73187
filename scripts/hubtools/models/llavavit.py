"""LLaVA-ViT."""

from typing import Any, Dict

from ..facts import Layout, Package, Shapes, rules, same

ROTARY_BUFFERS = (r"(^|\.)(video_rope|rotary_emb|rope)\.", r"(^|\.)inv_freq\w*$")
LAYER = "encoder.layers.{i}."
QKV = (LAYER + "self_attn.q_proj.{p}", LAYER + "self_attn.k_proj.{p}", LAYER + "self_attn.v_proj.{p}")
HEAD = same(
    "head.probe",
    "head.attention.in_proj_weight",
    "head.attention.in_proj_bias",
    "head.attention.out_proj.{p}",
    "head.norm.weight",
    "head.mlp.fc1.{p}",
    "head.mlp.fc2.{p}",
)
BLOCK = same(
    LAYER + "layer_norm1.{p}",
    LAYER + "layer_norm2.{p}",
    LAYER + "mlp.fc1.{p}",
    LAYER + "mlp.fc2.{p}",
)
NORMS = same("layernorm_pre.{p}", "layernorm_post.{p}")

LAYOUTS = (
    Layout(
        "hub",
        same("embeddings.patch_embedding.weight", *QKV, LAYER + "self_attn.out_proj.{p}", "classifier.{p}") + NORMS + BLOCK + HEAD,
        ROTARY_BUFFERS,
    ),
    Layout(
        "training",
        rules(
            ("conv1.weight", "embeddings.patch_embedding.weight"),
            ("ln_pre.{p}", "layernorm_pre.{p}"),
            ("ln_post.{p}", "layernorm_post.{p}"),
            ("transformer.layers.{i}.ln_1.{p}", LAYER + "layer_norm1.{p}"),
            ("transformer.layers.{i}.ln_2.{p}", LAYER + "layer_norm2.{p}"),
            ("transformer.layers.{i}.attn.in_proj.{p}", QKV),
            ("transformer.layers.{i}.attn.out_proj.{p}", LAYER + "self_attn.out_proj.{p}"),
            ("transformer.layers.{i}.attn.proj.{p}", LAYER + "self_attn.out_proj.{p}"),  # older trainings
            ("transformer.layers.{i}.mlp.0.{p}", LAYER + "mlp.fc1.{p}"),
            ("transformer.layers.{i}.mlp.2.{p}", LAYER + "mlp.fc2.{p}"),
        )
        + HEAD,
        ROTARY_BUFFERS,
    ),
    Layout(
        "packed",
        rules(
            ("patch_embed.proj.weight", "embeddings.patch_embedding.weight"),
            (LAYER + "self_attn.qkv.{p}", QKV),
            (LAYER + "self_attn.proj.{p}", LAYER + "self_attn.out_proj.{p}"),
        )
        + NORMS
        + BLOCK
        + HEAD,
        ROTARY_BUFFERS,
    ),
)


def sizes(shapes: Shapes) -> Dict[str, Any]:
    patches = shapes["embeddings.patch_embedding.weight"]
    return {
        "hidden_size": patches[0],
        "num_channels": patches[1],
        "patch_size": patches[2],
        "layer_norm_type": "layer_norm" if "layernorm_pre.bias" in shapes else "rms_norm",
        "use_head": "head.probe" in shapes,
    }


PACKAGE = Package(
    name="llavavit",
    model_type="llava_vit",
    base_prefix="llava_vit.",
    config_class="LlavaViTConfig",
    configuration="configuration_llava_vit",
    modeling="modeling_llava_vit",
    models={
        "AutoModel": "LlavaViTModel",
        "AutoModelForImageClassification": "LlavaViTForImageClassification",
        "AutoModelForVideoClassification": "LlavaViTForVideoClassification",
    },
    aliases=("onevision_encoder",),
    inert_keys=("rope_temporal_size",),
    layouts=LAYOUTS,
    sizes=sizes,
)
