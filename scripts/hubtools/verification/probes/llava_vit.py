"""Forward checks of LLaVA-ViT: image, video, sparse selections, batch, attention backends.

Inputs are 2 x 3 patches whatever the configured image size, so that the largest model takes seconds.
"""

from typing import Mapping

import torch

from .forwards import Forwards, Outputs, expect, expect_distinct, expect_equal, random, rows

ROWS, COLUMNS, FRAMES = 2, 3, 3
PATCHES = ROWS * COLUMNS
# Neither ascending nor complete, with neighbours and strangers.
SELECTION = (11, 0, 7, 17, 3, 12, 4)


class LlavaViTForwards(Forwards):
    def pixels(self, batch: int, frames: int = 0, seed: int = 0) -> torch.Tensor:
        size = (ROWS * self.config.patch_size, COLUMNS * self.config.patch_size)
        return random(batch, self.config.num_channels, *([frames] if frames else []), *size, seed=seed)

    def for_head(self, inputs: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """A video head refuses images: they become clips of one frame."""
        pixels = inputs["pixel_values"]
        is_video_head = type(self.model).__name__.endswith("ForVideoClassification")
        return {**inputs, "pixel_values": pixels.unsqueeze(2)} if is_video_head and pixels.dim() == 4 else inputs

    def image(self) -> str:
        inputs = {"pixel_values": self.pixels(1)}
        outputs = self.run(**inputs)
        self.record("image", inputs, outputs)
        self.check_sizes(outputs, 1, PATCHES)
        every = expect_equal(self.run(**inputs, visible_indices=torch.arange(PATCHES)[None]), outputs, "all indices named")
        frame = expect_equal(self.run(pixel_values=inputs["pixel_values"].unsqueeze(2)), outputs, "the image as a one-frame video")
        return f"{self.describe(outputs)}; all indices named: {every:.1e}, as a one-frame video: {frame:.1e}"

    def video(self) -> str:
        inputs = {"pixel_values": self.pixels(1, FRAMES)}
        outputs = self.run(**inputs)
        self.record("video", inputs, outputs)
        self.check_sizes(outputs, 1, FRAMES * PATCHES)
        every = expect_equal(self.run(**inputs, visible_indices=torch.arange(FRAMES * PATCHES)[None]), outputs, "all indices named")
        return f"{self.describe(outputs)}; all indices named: {every:.1e}"

    def sparse(self) -> str:
        video, selection = self.pixels(1, FRAMES), torch.tensor([SELECTION])
        inputs = {"pixel_values": video, "visible_indices": selection}
        outputs = self.run(**inputs)
        self.record("sparse", inputs, outputs)
        self.check_sizes(outputs, 1, len(SELECTION))
        placed = expect_equal(self.run(**inputs, patch_positions=positions_of(selection)), outputs, "positions spelled out")
        order = torch.arange(FRAMES * PATCHES).flip(0)
        turned = expect_equal(self.run(pixel_values=video, visible_indices=order[None]), reordered(self.run(pixel_values=video), order), "all patches, reversed")
        kept = self.check_residual(video)
        return f"{self.describe(outputs)}; positions spelled out: {placed:.1e}, order reversed: {turned:.1e}, residual: {kept:.1e}"

    def check_residual(self, video: torch.Tensor) -> float:
        """A residual signal selects its strongest patches: the same as naming them, in ascending order."""
        keep = min(self.config.max_visible_patches, FRAMES * PATCHES)
        residual = random(1, 1, *video.shape[2:], seed=7)
        side = self.config.patch_size
        scores = residual.abs().reshape(FRAMES, ROWS, side, COLUMNS, side).sum((2, 4)).flatten()
        named = scores.topk(keep).indices.sort().values
        found = self.run(pixel_values=video, visible_indices=residual)
        return expect_equal(found, self.run(pixel_values=video, visible_indices=named[None]), "patches chosen by a residual")

    def batch(self) -> str:
        videos = self.pixels(3, FRAMES, seed=1)
        images, picks = videos[:, :, 0], torch.tensor([SELECTION, SELECTION[::-1], range(7)])
        dense = self.run(pixel_values=images)
        sparse = self.run(pixel_values=videos, visible_indices=picks)
        expect_distinct(dense["last_hidden_state"], "batch")
        worst = 0.0
        for i in range(3):
            row = slice(i, i + 1)
            worst = max(worst, expect_equal(rows(dense, row), self.run(pixel_values=images[row]), f"image {i} in a batch and alone"))
            alone = self.run(pixel_values=videos[row], visible_indices=picks[row])
            worst = max(worst, expect_equal(rows(sparse, row), alone, f"selection {i} in a batch and alone"))
        return f"3 images and 3 selections equal themselves alone within {worst:.1e}"

    def attention(self) -> str:
        video = self.pixels(2, FRAMES, seed=2)
        picks = torch.tensor([SELECTION, SELECTION[::-1]])
        return self.compare_backends({"video": {"pixel_values": video}, "sparse": {"pixel_values": video, "visible_indices": picks}})

    def describe(self, outputs: Outputs) -> str:
        expect("pooler_output" in outputs, self.config.use_head, "pooler_output present")
        tokens, width = outputs["last_hidden_state"].shape[1:]
        return f"{tokens} tokens of width {width}, all finite"


def positions_of(indices: torch.Tensor) -> torch.Tensor:
    """(t, row, column) of patch indices, (B, N) -> (B, N, 3)."""
    return torch.stack((indices // PATCHES, indices % PATCHES // COLUMNS, indices % COLUMNS), dim=-1)


def reordered(outputs: Outputs, order: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """The outputs as they are when the tokens come in another order: pooling does not see it."""
    return {name: tensor if tensor.dim() == 2 else tensor[:, order] for name, tensor in outputs.items()}
