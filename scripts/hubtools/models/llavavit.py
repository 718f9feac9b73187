"""LLaVA-ViT."""

import math
from dataclasses import replace
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from ..errors import UserError
from ..facts import Case, Graph, Host, Layout, Package, Shapes, VideoProcessor, blocks, rules, same

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
MERGER = same("merger.ln_q.{p}", "merger.mlp.{i}.{p}")
NORMS = same("layernorm_pre.{p}", "layernorm_post.{p}")

LAYOUTS = (
    Layout(
        "hub",
        same("embeddings.patch_embedding.weight", *QKV, LAYER + "self_attn.out_proj.{p}", "classifier.{p}")
        + NORMS
        + BLOCK
        + HEAD
        + MERGER,
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
    Layout(  # the vision tower of that language model
        "llava-onevision-2",
        rules((LAYER + "self_attn.qkv.{p}", QKV), (LAYER + "self_attn.proj.{p}", LAYER + "self_attn.out_proj.{p}"))
        + same("embeddings.patch_embedding.weight", "layernorm_pre.{p}")
        + BLOCK
        + MERGER,
        ROTARY_BUFFERS,
        optional=(r"^merger\.",),
        prefix="model.visual.",
    ),
)


def sizes(shapes: Shapes) -> Dict[str, Any]:
    patches = shapes["embeddings.patch_embedding.weight"]
    merger = {}
    if {"merger.mlp.0.weight", "merger.mlp.2.weight"} <= set(shapes):
        joined, out = shapes["merger.mlp.0.weight"][0], shapes["merger.mlp.2.weight"][0]
        merger = {"out_hidden_size": out, "spatial_merge_size": math.isqrt(joined // patches[0])}
    return {
        **merger,
        "hidden_size": patches[0],
        "num_channels": patches[1],
        "patch_size": patches[2],
        "layer_norm_type": "layer_norm" if "layernorm_pre.bias" in shapes else "rms_norm",
        "use_head": "head.probe" in shapes,
    }


NATIVE_PROCESSOR = "LlavaViTImageProcessor"
SIDE = 224  # pixels of a clip's frames, where the pictures are no smaller
PLACES = 64  # in time, over which a clip's frames are spread where the recipe does not say otherwise

# Of the forward checks: small, so that the largest model takes seconds. In blocks, which are one patch without a merger.
ROWS, COLUMNS, FRAMES = 2, 3, 3
# Neither ascending nor complete, with neighbours and strangers; those beyond fewer frames are left out.
SELECTION = (11, 0, 7, 17, 3, 12, 4)


class Forwards:
    """image, video, sparse selections, batch, attention backends, on 2 x 3 blocks whatever the configured image
    size."""

    subjects = ("image", "video", "sparse", "batch", "attention")

    @property
    def block(self) -> int:
        """Side of the blocks that a merger joins, in patches."""
        return merged_side(self.config)

    @property
    def patches(self) -> int:
        """Of a frame."""
        return ROWS * COLUMNS * self.block**2

    @property
    def frames(self) -> int:
        """Of a video of which patches may be selected: more than a window's leave no windows."""
        return min(FRAMES, self.config.frame_windows_size or FRAMES)

    def pixels(self, batch: int, frames: int = 0, seed: int = 0):
        side = self.block * self.config.patch_size
        shape = (*([frames] if frames else []), ROWS * side, COLUMNS * side)
        return self.random(batch, self.config.num_channels, *shape, seed=seed)

    def blocks(self, frames: int):
        """Patch indices of each block, (blocks, patches of a block)."""
        import torch

        side = self.block
        grid = torch.arange(frames * self.patches).reshape(frames, ROWS, side, COLUMNS, side)
        return grid.transpose(2, 3).reshape(-1, side * side)

    def selection(self, backwards: bool = False):
        """Patch indices of the blocks of SELECTION, (N,)."""
        every = self.blocks(self.frames)
        chosen = [number for number in SELECTION[:: -1 if backwards else 1] if number < len(every)]
        return every[chosen].flatten()

    def for_head(self, inputs):
        """A video classifier refuses images: it takes them as clips of one frame."""
        is_video = type(self.model).__name__ == PACKAGE.models["AutoModelForVideoClassification"]
        if not is_video or inputs["pixel_values"].dim() == 5:
            return inputs
        return {**inputs, "pixel_values": inputs["pixel_values"].unsqueeze(2)}

    def image(self) -> str:
        inputs = {"pixel_values": self.pixels(1)}
        outputs = self.run(**inputs)
        self.record("image", inputs, outputs)
        self.check_sizes(outputs, 1, self.patches)
        every = self.check_named(inputs["pixel_values"], outputs)
        as_video = self.run(pixel_values=inputs["pixel_values"].unsqueeze(2))
        frame = self.expect_equal(as_video, outputs, "the image as a one-frame video")
        return f"{self.describe(outputs)}; all indices named: {every:.1e}, as a one-frame video: {frame:.1e}"

    def video(self) -> str:
        inputs = {"pixel_values": self.pixels(1, FRAMES)}
        outputs = self.run(**inputs)
        self.record("video", inputs, outputs)
        self.check_sizes(outputs, 1, FRAMES * self.patches)
        if self.frames < FRAMES:
            return f"{self.describe(outputs)}; in windows of {self.frames}"
        every = self.check_named(inputs["pixel_values"], outputs)
        return f"{self.describe(outputs)}; all indices named: {every:.1e}"

    def check_named(self, pixels, outputs, backwards: bool = False) -> float:
        """All patches named, block by block: the same as none named, in that order."""
        blocks = self.blocks(1 if pixels.dim() == 4 else pixels.shape[2])
        numbers = blocks[:, 0].argsort().flip(0) if backwards else slice(None)
        named = blocks[numbers].flatten()
        found = self.run(pixel_values=pixels, visible_indices=named[None])
        expected = reordered(outputs, named, numbers)
        return self.expect_equal(found, expected, f"all indices named{' backwards' * backwards}")

    def sparse(self) -> str:
        video, selection = self.pixels(1, self.frames), self.selection()[None]
        inputs = {"pixel_values": video, "visible_indices": selection}
        outputs = self.run(**inputs)
        self.record("sparse", inputs, outputs)
        self.check_sizes(outputs, 1, selection.shape[1])
        again = self.run(**inputs, patch_positions=self.positions_of(selection))
        placed = self.expect_equal(again, outputs, "positions spelled out")
        turned = self.check_named(video, self.run(pixel_values=video), backwards=True)
        done = f"{self.describe(outputs)}; positions spelled out: {placed:.1e}, order reversed: {turned:.1e}"
        # The patches that a residual keeps are not whole blocks: a merger takes none.
        return done if self.block > 1 else f"{done}, residual: {self.check_residual(video):.1e}"

    def check_residual(self, video) -> float:
        """A residual signal selects its strongest patches: the same as naming them, in ascending order."""
        keep = min(self.config.max_visible_patches, self.frames * self.patches)
        residual = self.random(1, 1, *video.shape[2:], seed=7)
        side = self.config.patch_size
        scores = residual.abs().reshape(self.frames, ROWS, side, COLUMNS, side).sum((2, 4)).flatten()
        named = scores.topk(keep).indices.sort().values
        found = self.run(pixel_values=video, visible_indices=residual)
        expected = self.run(pixel_values=video, visible_indices=named[None])
        return self.expect_equal(found, expected, "patches chosen by a residual")

    def batch(self) -> str:
        import torch

        videos = self.pixels(3, self.frames, seed=1)
        forwards, backwards = self.selection(), self.selection(backwards=True)
        images, picks = videos[:, :, 0], torch.stack((forwards, backwards, forwards.roll(self.block**2)))
        dense = self.run(pixel_values=images)
        sparse = self.run(pixel_values=videos, visible_indices=picks)
        self.expect_distinct(dense["last_hidden_state"], "batch")
        worst = 0.0
        for i in range(3):
            row = slice(i, i + 1)
            alone = self.run(pixel_values=images[row])
            worst = max(worst, self.expect_equal(self.rows(dense, row), alone, f"image {i} in a batch and alone"))
            alone = self.run(pixel_values=videos[row], visible_indices=picks[row])
            worst = max(worst, self.expect_equal(self.rows(sparse, row), alone, f"selection {i} in a batch and alone"))
        return f"3 images and 3 selections equal themselves alone within {worst:.1e}"

    def attention(self) -> str:
        import torch

        selected = self.pixels(2, self.frames, seed=2)
        picks = torch.stack((self.selection(), self.selection(backwards=True)))
        cases = {"sparse": {"pixel_values": selected, "visible_indices": picks}}
        return self.compare_backends({"video": {"pixel_values": self.pixels(2, FRAMES, seed=2)}, **cases})

    def describe(self, outputs) -> str:
        self.expect("pooler_output" in outputs, self.config.use_head, "pooler_output present")
        self.expect("merged_states" in outputs, self.config.out_hidden_size is not None, "merged_states present")
        tokens, width = outputs["last_hidden_state"].shape[1:]
        merged = outputs.get("merged_states")
        joined = "" if merged is None else f", merged into {merged.shape[1]} of width {merged.shape[2]}"
        return f"{tokens} tokens of width {width}{joined}, all finite"

    def positions_of(self, indices):
        """(t, row, column) of patch indices, (B, N) -> (B, N, 3)."""
        import torch

        columns = COLUMNS * self.block
        places = (indices // self.patches, indices % self.patches // columns, indices % columns)
        return torch.stack(places, dim=-1)


def reordered(outputs, order, blocks):
    """The outputs as they are when the tokens come in another order: pooling does not see it."""
    orders = {"merged_states": blocks}
    return {
        name: tensor if tensor.dim() == 2 else tensor[:, orders.get(name, order)] for name, tensor in outputs.items()
    }


def try_processor(probe, processor) -> str:
    """Runs a folder's processor on a picture."""
    import torch

    inputs = processor(images=probe.picture(), return_tensors="pt")
    pixels, config = inputs["pixel_values"], probe.model_config()
    patch = config["patch_size"]
    if "grid_thw" in inputs:
        if pixels.shape[1] != config["num_channels"] * patch**2:
            probe.fail(
                f"it makes patches of {pixels.shape[1]} values, the model's have {config['num_channels']} x {patch} x {patch}"
            )
        return f"a picture becomes a pack of {len(pixels)} patches"
    if pixels.dim() != 4 or pixels.shape[-1] % patch or pixels.shape[-2] % patch:
        probe.fail(
            f"it makes pixel_values of shape {tuple(pixels.shape)}, not (B, C, H, W) in whole patches of {patch}"
        )
    if not torch.isfinite(pixels).all():
        probe.fail("it makes pixel_values with NaN or infinity")
    return f"a picture becomes pixel_values of shape {tuple(pixels.shape)}"


def merged_side(config: Any) -> int:
    """Side of the blocks that a merger joins, in patches; 1 without a merger."""
    return 1 if config.out_hidden_size is None else config.spatial_merge_size


def default_processor(config: Any) -> Dict[str, Any]:
    """What the model was trained with, in the terms of transformers' CLIPImageProcessor; for a merger whole blocks."""
    block = 1 if config.out_hidden_size is None else config.patch_size * merged_side(config)
    side = max(block, config.image_size // block * block)
    return {"size": side, "crop_size": side}


def native_defaults(config: Any) -> Dict[str, Any]:
    """What the processor of native resolution must have of the model: patches, and the merger's blocks."""
    return {"patch_size": config.patch_size, "merge_size": merged_side(config)}


def subject(recipe: Any, config: Any) -> Optional[str]:
    """The templates of a vision tower, and those of a classifier of images at native resolution."""
    if recipe.auto_class == "AutoModel":
        return "tower" if is_tower(config) else None
    native = recipe.processor_auto_class is not None and recipe.auto_class == "AutoModelForImageClassification"
    return "native" if native else None


def is_tower(config: Any) -> bool:
    """Whether the model takes whole blocks or whole videos alone, as a language model's vision tower does."""
    return config.out_hidden_size is not None or config.frame_windows_size > 0


def try_video_processor(probe, processor) -> str:
    """Runs a folder's video processor on frames; in place of the codec by their difference, which needs no decoder."""
    import torch

    frames = torch.arange(3 * 40 * 50 * 3).reshape(3, 40, 50, 3) ** 2 % 251
    selection = "difference" if processor.selection == "codec" else processor.selection
    inputs = processor(videos=frames.to(torch.uint8), return_tensors="pt", selection=selection)
    pixels, visible = inputs["pixel_values"], inputs["visible_indices"]
    patch = probe.model_config()["patch_size"]
    if processor.patch_size != patch:
        probe.fail(f"the video processor has patch_size {processor.patch_size}, the model {patch}")
    if not torch.isfinite(pixels).all():
        probe.fail("the video processor makes pixel_values with NaN or infinity")
    return f"3 frames become {visible.shape[1]} patches of pixel_values of shape {tuple(pixels.shape)}"


def video_defaults(config: Any, images: Mapping[str, Any]) -> Dict[str, Any]:
    """The video processor's settings by the model's sizes and by what `images` says of pictures."""
    block = config.patch_size * merged_side(config)
    stated = images["crop_size"] if images.get("do_center_crop", True) else images["size"]
    side = min(
        SIDE, *(stated.values() if isinstance(stated, dict) else stated if isinstance(stated, list) else [stated])
    )
    return {
        "num_places": PLACES,
        "size": max(block, side // block * block),
        "patch_size": config.patch_size,
        "max_visible_patches": config.max_visible_patches,
        **({"selection": "none"} if is_tower(config) else {}),
        "image_mean": three(images["image_mean"]),
        "image_std": three(images["image_std"]),
    }


def three(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value] * 3


def parameters(config: Any) -> int:
    width, inner = config.hidden_size, config.intermediate_size
    head = 4 * width**2 + 2 * width * inner if config.use_head else 0
    joined, out = width * config.spatial_merge_size**2, config.out_hidden_size
    merger = 0 if out is None else joined**2 + joined * out
    return blocks(config) + head + merger + width * config.num_channels * config.patch_size**2


def card_values(recipe: Any, config: Any) -> Dict[str, Any]:
    """What the templates of the cards leave open."""
    places = {"num_places": recipe.video_processor.get("num_places", PLACES)}
    if recipe.auto_class != "AutoModel":
        return {**places, "sparse_line": f"print(tuple(output.logits.shape))  # (1, {config.num_labels})"}
    pooled = (
        "print(output.pooler_output.shape)  # (1, hidden size)"
        if config.use_head
        else "print(output.pooler_output)  # None: this model has no pooling head"
    )
    merges = config.out_hidden_size is not None
    merged = "print(tuple(output.merged_states.shape))  # (blocks, width of the language model)"
    return {
        **places,
        "block": config.spatial_merge_size if merges else 1,
        "merged_line": merged if merges else "print(output.merged_states)  # None: this folder has no merger",
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


def pack_of(*grids: Tuple[int, int, int]):
    """A maker of a pack of whole samples, of these frames, rows and columns of patches."""

    def make(generator):
        import torch

        axes = [torch.meshgrid(*map(torch.arange, grid), indexing="ij") for grid in grids]
        positions = torch.cat([torch.stack(places, dim=-1).reshape(-1, 3) for places in axes])
        patches = torch.randn(len(positions), 3 * 14 * 14, generator=generator)
        return {"pixel_values": patches, "patch_positions": positions, "grid_thw": torch.tensor(grids)}

    return make


def squares(smallest: int, largest: int, count: int):
    """Grids of `count` square images, their sides in patches spread evenly."""
    sides = [smallest + (largest - smallest) * number // (count - 1) for number in range(count)]
    return [(1, side, side) for side in sides]


def case(name: str, make_inputs, reference: str = "PlainLlavaViT", output: str = "pooler_output", **settings) -> Case:
    config = {**LARGE_WIDTHS, **settings}
    return Case(name, "llavavit", "LlavaViTModel", config, make_inputs, f"tests/plain_llava_vit.py:{reference}", output)


def packed_case(name: str, grids: Sequence[Tuple[int, int, int]], reference: str, **settings) -> Case:
    """A pack of whole samples, through a model without a head, which takes minutes."""
    made = case(name, pack_of(*grids), reference, "last_hidden_state", use_head=False, **settings)
    return replace(made, largest=pack_of(max(grids, key=math.prod)), heavy=True)


CASES = (
    case("image", pixels_of(448, 448)),
    case("video", pixels_of(16, 224, 224)),
    case("sparse", pixels_of(64, 224, 224, visible=2048)),
    # 16 images of 112 x 112 to 672 x 672, against padding to the largest; PlainPackOneByOne is the other way without packs
    packed_case("packed", squares(8, 48, 16), "PlainPackPadded"),
    # 64 images of 98 x 98 to 224 x 224
    packed_case("packed-small", squares(7, 16, 64), "PlainPackOneByOne"),
    # 32 frames of 448 x 448; against PlainPackOneByOne the time ratio is that to the same frames without windows
    packed_case("tower-windows", [(32, 32, 32)], "PlainPackInWindows", frame_windows_size=4),
)


# --- exported graphs

# The first version of ONNX with an operator for attention: without it a clip of 4,096 patches takes 1.2 times as long.
OPSET = 23
# Of export and comparison: frames, and rows and columns of blocks, which are one patch without a merger.
GRIDS = (
    (3, 3, 4), (1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 3, 3), (1, 4, 2), (1, 2, 7), (1, 5, 5), (2, 1, 1), (2, 2, 2),
    (2, 3, 5), (3, 2, 2), (4, 1, 3), (4, 4, 4), (5, 2, 3), (6, 3, 1), (7, 2, 2), (8, 1, 1), (9, 2, 4), (16, 2, 2),
)  # fmt: skip


def graphs(config: Any, architecture: str) -> Tuple[Graph, ...]:
    """The model on whole inputs, and on selected patches. Images are (B, C, H, W) to an image classifier alone, elsewhere
    clips of one frame."""
    if config.frame_windows_size:
        raise UserError(
            f"a model with frame_windows_size = {config.frame_windows_size} cannot be exported: how its tokens divide into "
            "windows depends on the number of frames, which a graph must leave open; accepted: frame_windows_size = 0"
        )
    clips = architecture != PACKAGE.models["AutoModelForImageClassification"]
    step = config.patch_size * (1 if config.out_hidden_size is None else config.spatial_merge_size)
    shape = ("batch", config.num_channels, *(("frames",) if clips else ()), "height", "width")
    inputs, steps = {"pixel_values": shape}, {"height": step, "width": step}
    trials, make = trial_sizes(step, clips), trial_pixels(shape)
    whole = Graph("model", inputs, outputs_of(config, architecture, "patches"), make, trials, steps, OPSET)
    if config.out_hidden_size is not None:  # a merger takes whole blocks: what a selection seldom is
        return (whole,)
    inputs = {**inputs, "visible_indices": ("batch", "visible_patches")}
    trials = tuple({**sizes, "visible_patches": 1 + patches_in(sizes, step) // 2} for sizes in trials)
    outputs, make = outputs_of(config, architecture, "visible_patches"), trial_selection(make, step)
    return whole, Graph("model_visible_indices", inputs, outputs, make, trials, steps, OPSET)


def trial_sizes(step: int, clips: bool) -> Tuple[Dict[str, int], ...]:
    sizes = [{"frames": frames if clips else 1, "height": h * step, "width": w * step} for frames, h, w in GRIDS]
    return tuple({"batch": 2 - number % 2, **varying} for number, varying in enumerate(sizes))


def patches_in(sizes: Mapping[str, int], patch_size: int) -> int:
    return sizes["frames"] * (sizes["height"] // patch_size) * (sizes["width"] // patch_size)


def trial_pixels(shape: Tuple[Any, ...]):
    """A maker of pixels of this shape, in which sizes that vary stand by name."""

    def make(sizes, generator):
        import torch

        numbers = [sizes[size] if isinstance(size, str) else size for size in shape]
        return {"pixel_values": torch.randn(numbers, generator=generator)}

    return make


def trial_selection(make_pixels, patch_size: int):
    """A maker of pixels, and of as many of their patches as `visible_patches` says, in any order."""

    def make(sizes, generator):
        import torch

        count = patches_in(sizes, patch_size)
        rows = [torch.randperm(count, generator=generator) for _ in range(sizes["batch"])]
        return {**make_pixels(sizes, generator), "visible_indices": torch.stack(rows)[:, : sizes["visible_patches"]]}

    return make


def outputs_of(config: Any, architecture: str, tokens: str) -> Dict[str, Tuple[Any, ...]]:
    if architecture != PACKAGE.models["AutoModel"]:
        return {"logits": ("batch", config.num_labels)}
    outputs: Dict[str, Tuple[Any, ...]] = {"last_hidden_state": ("batch", tokens, config.hidden_size)}
    if config.use_head:
        outputs["pooler_output"] = ("batch", config.hidden_size)
    if config.out_hidden_size is not None:
        outputs["merged_states"] = ("batch", "blocks", config.out_hidden_size)
    return outputs


def array_lines(config: Any, settings: Mapping[str, Any]) -> str:
    """Pixels in NumPy: whole patches, scaled and normalised as the processor does."""
    side = settings.get("crop_size", settings.get("size", config.image_size))
    side = next(iter(side.values())) if isinstance(side, dict) else side
    mean, std = ([round(value, 8) for value in three(settings[key])] for key in ("image_mean", "image_std"))
    normalised = f"((frames / 255 - {mean}) / {std}).astype(np.float32)"
    architecture = (config.architectures or [None])[0]
    if architecture == PACKAGE.models["AutoModelForVideoClassification"]:
        frames = f"frames = np.zeros((16, {side}, {side}, 3), np.uint8)  # yours, RGB"
    else:
        frames = f'frames = np.asarray(Image.open("photo.jpg").convert("RGB").resize(({side}, {side})))[None]'
    order = "0, 3, 1, 2)" if architecture == PACKAGE.models["AutoModelForImageClassification"] else "3, 0, 1, 2)[None]"
    shape = "(1, 3, H, W)" if "[None]" not in order else "(1, 3, T, H, W): an image is a clip of one frame"
    return f'{frames}\npixels = {normalised}\ninputs = {{"pixel_values": pixels.transpose({order}}}  # {shape}'


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
    views={"AutoBackbone": "LlavaViTBackbone"},
    aliases=("onevision_encoder",),
    inert_keys=("tokens_per_second",),
    hosts={"llava_onevision2": Host("vision_config", {"use_head": False}, {"temporal_patch_size": 1})},
    subject=subject,
    processors={"AutoImageProcessor": ("image_processing_llava_vit", NATIVE_PROCESSOR)},
    processors_if_named=True,
    own_defaults=native_defaults,
    inputs="pixels",
    layouts=LAYOUTS,
    sizes=sizes,
    parameters=parameters,
    forwards=Forwards,
    default_processor=default_processor,
    try_processor=try_processor,
    video_processor=VideoProcessor(
        modules=(
            "video_processing_llava_vit",
            "video_reading_llava_vit",
            "video_selection_llava_vit",
            "image_processing_llava_vit",
        ),
        class_name="LlavaViTVideoProcessor",
        defaults=video_defaults,
        try_processor=try_video_processor,
    ),
    card_values=card_values,
    graphs=graphs,
    array_lines=array_lines,
    lora_targets=r".*encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])",
    cases=CASES,
)
