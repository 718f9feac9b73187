"""LLaVA-ViT."""

from typing import Any, Dict, Mapping, Optional

from ..facts import Case, Layout, Package, Shapes, VideoProcessor, blocks, rules, same

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
        same("embeddings.patch_embedding.weight", *QKV, LAYER + "self_attn.out_proj.{p}", "classifier.{p}")
        + NORMS
        + BLOCK
        + HEAD,
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


SIDE = 224  # pixels of a clip's frames, where the pictures are no smaller

# Of the forward checks: small, so that the largest model takes seconds.
ROWS, COLUMNS, FRAMES = 2, 3, 3
PATCHES = ROWS * COLUMNS
# Neither ascending nor complete, with neighbours and strangers.
SELECTION = (11, 0, 7, 17, 3, 12, 4)


class Forwards:
    """image, video, sparse selections, batch, attention backends, on 2 x 3 patches whatever the configured image
    size."""

    subjects = ("image", "video", "sparse", "batch", "attention")

    def pixels(self, batch: int, frames: int = 0, seed: int = 0):
        size = (ROWS * self.config.patch_size, COLUMNS * self.config.patch_size)
        return self.random(batch, self.config.num_channels, *([frames] if frames else []), *size, seed=seed)

    def for_head(self, inputs):
        """A video classifier refuses images: it takes them as clips of one frame."""
        if (
            type(self.model).__name__ != PACKAGE.models["AutoModelForVideoClassification"]
            or inputs["pixel_values"].dim() == 5
        ):
            return inputs
        return {**inputs, "pixel_values": inputs["pixel_values"].unsqueeze(2)}

    def image(self) -> str:
        import torch

        inputs = {"pixel_values": self.pixels(1)}
        outputs = self.run(**inputs)
        self.record("image", inputs, outputs)
        self.check_sizes(outputs, 1, PATCHES)
        every = self.expect_equal(
            self.run(**inputs, visible_indices=torch.arange(PATCHES)[None]), outputs, "all indices named"
        )
        frame = self.expect_equal(
            self.run(pixel_values=inputs["pixel_values"].unsqueeze(2)), outputs, "the image as a one-frame video"
        )
        return f"{self.describe(outputs)}; all indices named: {every:.1e}, as a one-frame video: {frame:.1e}"

    def video(self) -> str:
        import torch

        inputs = {"pixel_values": self.pixels(1, FRAMES)}
        outputs = self.run(**inputs)
        self.record("video", inputs, outputs)
        self.check_sizes(outputs, 1, FRAMES * PATCHES)
        every = self.expect_equal(
            self.run(**inputs, visible_indices=torch.arange(FRAMES * PATCHES)[None]), outputs, "all indices named"
        )
        return f"{self.describe(outputs)}; all indices named: {every:.1e}"

    def sparse(self) -> str:
        import torch

        video, selection = self.pixels(1, FRAMES), torch.tensor([SELECTION])
        inputs = {"pixel_values": video, "visible_indices": selection}
        outputs = self.run(**inputs)
        self.record("sparse", inputs, outputs)
        self.check_sizes(outputs, 1, len(SELECTION))
        placed = self.expect_equal(
            self.run(**inputs, patch_positions=positions_of(selection)), outputs, "positions spelled out"
        )
        order = torch.arange(FRAMES * PATCHES).flip(0)
        turned = self.expect_equal(
            self.run(pixel_values=video, visible_indices=order[None]),
            reordered(self.run(pixel_values=video), order),
            "all patches, reversed",
        )
        kept = self.check_residual(video)
        return (
            f"{self.describe(outputs)}; positions spelled out: {placed:.1e}, order reversed: {turned:.1e}, "
            f"residual: {kept:.1e}"
        )

    def check_residual(self, video) -> float:
        """A residual signal selects its strongest patches: the same as naming them, in ascending order."""
        keep = min(self.config.max_visible_patches, FRAMES * PATCHES)
        residual = self.random(1, 1, *video.shape[2:], seed=7)
        side = self.config.patch_size
        scores = residual.abs().reshape(FRAMES, ROWS, side, COLUMNS, side).sum((2, 4)).flatten()
        named = scores.topk(keep).indices.sort().values
        found = self.run(pixel_values=video, visible_indices=residual)
        return self.expect_equal(
            found, self.run(pixel_values=video, visible_indices=named[None]), "patches chosen by a residual"
        )

    def batch(self) -> str:
        import torch

        videos = self.pixels(3, FRAMES, seed=1)
        images, picks = videos[:, :, 0], torch.tensor([SELECTION, SELECTION[::-1], range(7)])
        dense = self.run(pixel_values=images)
        sparse = self.run(pixel_values=videos, visible_indices=picks)
        self.expect_distinct(dense["last_hidden_state"], "batch")
        worst = 0.0
        for i in range(3):
            row = slice(i, i + 1)
            worst = max(
                worst,
                self.expect_equal(
                    self.rows(dense, row), self.run(pixel_values=images[row]), f"image {i} in a batch and alone"
                ),
            )
            alone = self.run(pixel_values=videos[row], visible_indices=picks[row])
            worst = max(worst, self.expect_equal(self.rows(sparse, row), alone, f"selection {i} in a batch and alone"))
        return f"3 images and 3 selections equal themselves alone within {worst:.1e}"

    def attention(self) -> str:
        import torch

        video = self.pixels(2, FRAMES, seed=2)
        picks = torch.tensor([SELECTION, SELECTION[::-1]])
        return self.compare_backends(
            {"video": {"pixel_values": video}, "sparse": {"pixel_values": video, "visible_indices": picks}}
        )

    def describe(self, outputs) -> str:
        self.expect("pooler_output" in outputs, self.config.use_head, "pooler_output present")
        tokens, width = outputs["last_hidden_state"].shape[1:]
        return f"{tokens} tokens of width {width}, all finite"


def positions_of(indices):
    """(t, row, column) of patch indices, (B, N) -> (B, N, 3)."""
    import torch

    return torch.stack((indices // PATCHES, indices % PATCHES // COLUMNS, indices % COLUMNS), dim=-1)


def reordered(outputs, order):
    """The outputs as they are when the tokens come in another order: pooling does not see it."""
    return {name: tensor if tensor.dim() == 2 else tensor[:, order] for name, tensor in outputs.items()}


def try_processor(probe, processor) -> str:
    """Runs a folder's processor on a picture."""
    import torch

    pixels = processor(images=probe.picture(), return_tensors="pt")["pixel_values"]
    patch = probe.model_config()["patch_size"]
    if pixels.dim() != 4 or pixels.shape[-1] % patch or pixels.shape[-2] % patch:
        probe.fail(
            f"it makes pixel_values of shape {tuple(pixels.shape)}, not (B, C, H, W) in whole patches of {patch}"
        )
    if not torch.isfinite(pixels).all():
        probe.fail("it makes pixel_values with NaN or infinity")
    return f"a picture becomes pixel_values of shape {tuple(pixels.shape)}"


def default_processor(config: Any) -> Dict[str, Any]:
    """What the model was trained with, in the terms of transformers' CLIPImageProcessor."""
    return {"size": config.image_size, "crop_size": config.image_size}


def try_video_processor(probe, processor) -> str:
    """Runs a folder's video processor on frames; by their difference, which needs no decoder."""
    import torch

    frames = torch.arange(3 * 40 * 50 * 3).reshape(3, 40, 50, 3) ** 2 % 251
    inputs = processor(videos=frames.to(torch.uint8), return_tensors="pt", selection="difference")
    pixels, visible = inputs["pixel_values"], inputs["visible_indices"]
    patch = probe.model_config()["patch_size"]
    if processor.patch_size != patch:
        probe.fail(f"the video processor has patch_size {processor.patch_size}, the model {patch}")
    if not torch.isfinite(pixels).all():
        probe.fail("the video processor makes pixel_values with NaN or infinity")
    return f"3 frames become {visible.shape[1]} patches of pixel_values of shape {tuple(pixels.shape)}"


def video_defaults(config: Any, images: Mapping[str, Any]) -> Dict[str, Any]:
    """The video processor's settings by the model's sizes and by what `images` says of pictures."""
    patch = config.patch_size
    stated = images["crop_size"] if images.get("do_center_crop", True) else images["size"]
    side = min(SIDE, *(stated.values() if isinstance(stated, dict) else stated if isinstance(stated, list) else [stated]))
    return {
        "size": max(patch, side // patch * patch),
        "patch_size": patch,
        "max_visible_patches": config.max_visible_patches,
        "image_mean": three(images["image_mean"]),
        "image_std": three(images["image_std"]),
    }


def three(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value] * 3


def parameters(config: Any) -> int:
    width, inner = config.hidden_size, config.intermediate_size
    head = 4 * width**2 + 2 * width * inner if config.use_head else 0
    return blocks(config) + head + width * config.num_channels * config.patch_size**2


def card_values(recipe: Any, config: Any) -> Dict[str, Any]:
    """What the templates of the cards leave open."""
    if recipe.auto_class != "AutoModel":
        return {"sparse_line": f"print(tuple(output.logits.shape))  # (1, {config.num_labels})"}
    pooled = (
        "print(output.pooler_output.shape)  # (1, hidden size)"
        if config.use_head
        else "print(output.pooler_output)  # None: this model has no pooling head"
    )
    return {
        "pooled_line": pooled,
        "sparse_line": "print(output.last_hidden_state.shape)  # (1, visible patches, hidden size)",
    }


# --- benchmark cases: the widths of the large size, four layers

LARGE_WIDTHS = dict(
    hidden_size=1024, intermediate_size=4096, num_attention_heads=16, patch_size=14, num_hidden_layers=4
)


def pixels_of(*shape: int, visible: Optional[int] = None):
    """A maker of (1, 3, ...) pixels, and of `visible` ascending patch indices where asked."""

    def make(generator):
        import torch

        inputs = dict(pixel_values=torch.randn(1, 3, *shape, generator=generator))
        if visible is not None:
            frames, height, width = shape
            patches = frames * (height // 14) * (width // 14)
            inputs["visible_indices"] = torch.randperm(patches, generator=generator)[:visible].sort().values[None]
        return inputs

    return make


def case(name: str, make_inputs) -> Case:
    return Case(
        name,
        "llavavit",
        "LlavaViTModel",
        LARGE_WIDTHS,
        make_inputs,
        "tests/plain_llava_vit.py:PlainLlavaViT",
        "pooler_output",
    )


CASES = (
    case("image", pixels_of(448, 448)),
    case("video", pixels_of(16, 224, 224)),
    case("sparse", pixels_of(64, 224, 224, visible=2048)),
)


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
    inputs="pixels",
    layouts=LAYOUTS,
    sizes=sizes,
    parameters=parameters,
    forwards=Forwards,
    default_processor=default_processor,
    try_processor=try_processor,
    video_processor=VideoProcessor(
        modules=("video_processing_llava_vit", "video_reading_llava_vit", "video_selection_llava_vit"),
        class_name="LlavaViTVideoProcessor",
        defaults=video_defaults,
        try_processor=try_video_processor,
    ),
    card_values=card_values,
    lora_targets=r".*encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])",
    cases=CASES,
)
