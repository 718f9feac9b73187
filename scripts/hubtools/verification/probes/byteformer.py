"""Forward checks of ByteFormer: bytes, padded batch, attention backends.

Inputs are as long as one and a half windows need, whatever the configured maximum.
"""

from typing import Tuple

import torch

from .forwards import Forwards, Outputs, expect, expect_distinct, expect_equal, rows


class ByteFormerForwards(Forwards):
    def __init__(self, model: torch.nn.Module):
        super().__init__(model)
        self.kernel = self.config.conv_kernel_size
        self.stride = self.kernel // 2
        window = max(self.config.window_sizes)
        self.tokens = min(self.config.max_position_embeddings, window + window // 2 + 1)
        self.length = self.kernel + self.stride * (self.tokens - 1)

    def random_bytes(self, batch: int, seed: int) -> torch.Tensor:
        high = min(256, self.config.vocab_size - 1)
        return torch.randint(0, high, (batch, self.length), generator=torch.Generator().manual_seed(seed))

    def padded(self, seed: int) -> Tuple[torch.Tensor, int]:
        """Two rows, the second with padding behind its first `real` bytes."""
        ids = self.random_bytes(2, seed)
        real = max(self.kernel, self.length * 3 // 5)
        ids[1, real:] = self.config.vocab_size - 1
        return ids, real

    def bytes(self) -> str:
        inputs = {"input_ids": self.random_bytes(1, seed=0)}
        outputs = self.run(**inputs)
        self.record("bytes", inputs, outputs)
        expect(tuple(outputs["hidden_states.0"].shape), (1, self.tokens, self.config.hidden_size), "shape of the embedded bytes")
        left = self.tokens
        for merges in self.config.downsample:
            left = -(-left // 2) if merges else left
        self.check_sizes(outputs, 1, left)
        return f"{self.length} bytes, {self.tokens} tokens, {left} after merging, all finite"

    def padded_batch(self) -> str:
        ids, real = self.padded(seed=1)
        outputs = self.run(input_ids=ids)
        self.record("padded batch", {"input_ids": ids}, outputs)
        expect_distinct(outputs["pooler_output"], "batch")
        minus_one = torch.where(ids == self.config.vocab_size - 1, -1, ids)
        same = expect_equal(self.run(input_ids=minus_one), outputs, f"padding as -1 and as {self.config.vocab_size - 1}")
        first = expect_equal(self.run(input_ids=ids[:1]), rows(outputs, slice(0, 1)), "row 0 in a batch and alone")
        # Released checkpoints count padding, so the row alone keeps it; with masking the row alone has none.
        alone = self.run(input_ids=ids[1:, :real] if self.config.mask_padding else ids[1:])
        second = self.same_result(alone, rows(outputs, slice(1, 2)))
        mode = "padding masked" if self.config.mask_padding else "padding counted, as released"
        return f"{mode}; rows equal themselves alone within {max(first, second):.1e}, padding as -1: {same:.1e}"

    def same_result(self, alone: Outputs, in_batch: Outputs) -> float:
        """Compares what a caller gets for the row: tokens too where their number is the same."""
        names = ("pooler_output", "logits") if self.config.mask_padding else tuple(in_batch)
        expected = {name: alone[name] for name in names if name in alone}
        return expect_equal(in_batch, expected, "the padded row in a batch and alone")

    def attention(self) -> str:
        return self.compare_backends({"bytes": {"input_ids": self.random_bytes(1, seed=2)}, "padded batch": {"input_ids": self.padded(seed=3)[0]}})
