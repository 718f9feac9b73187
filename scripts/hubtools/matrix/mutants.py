"""Deliberately broken copies of the models. Each is a mistake that has shipped elsewhere; the contract suite must notice every one."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Tuple

from ..errors import UserError


@dataclass(frozen=True)
class Mutant:
    """Exact replacements in one modeling file: (text, what stands in its place, how often the text occurs)."""

    name: str
    package: str
    file: str
    replacements: Tuple[Tuple[str, str, int], ...]


_LLAVA = ("llavavit", "modeling_llava_vit.py")
_BYTEFORMER = ("byteformer", "modeling_byteformer.py")

MUTANTS = (
    Mutant(
        "llavavit: rotary frequencies in a non-persistent buffer",
        *_LLAVA,
        (
            (
                "        self.head = LlavaViTPoolingHead(config) if config.use_head else None\n",
                "        self.head = LlavaViTPoolingHead(config) if config.use_head else None\n"
                "        sizes = [config.head_dim // 32 * share for share in (4, 6, 6)]\n"
                "        inv_freq = torch.cat([config.rope_theta ** -(torch.arange(n).float() / n) for n in sizes])\n"
                '        self.register_buffer("inv_freq", inv_freq, persistent=False)\n',
                1,
            ),
            (
                "        cos, sin = rotary_cos_sin(positions, config.head_dim, config.rope_theta, tokens.dtype)\n",
                "        unit = config.head_dim // 32\n"
                "        axes = [positions[..., axis, None].expand(-1, -1, n * unit) for axis, n in enumerate((4, 6, 6))]\n"
                "        angles = torch.cat(axes, dim=-1).float() * self.inv_freq.float()\n"
                "        angles = torch.cat((angles, angles), dim=-1)[:, :, None, :]\n"
                "        cos, sin = angles.cos().to(tokens.dtype), angles.sin().to(tokens.dtype)\n",
                1,
            ),
        ),
    ),
    Mutant(
        "llavavit: .data.normal_() in _init_weights",
        *_LLAVA,
        (("nn.init.normal_(module.weight, mean=0.0, std=std)", "module.weight.data.normal_(mean=0.0, std=std)", 1),),
    ),
    Mutant("llavavit: post_init left out", *_LLAVA, (("        self.post_init()\n", "", 3),)),
    Mutant("llavavit: only the old flash-attention flag", *_LLAVA, (("    _supports_flash_attn = True\n", "", 1),)),
    Mutant(
        "byteformer: .data.normal_() in _init_weights",
        *_BYTEFORMER,
        (
            (
                "nn.init.trunc_normal_(module.weight, std=self.config.initializer_range)",
                "module.weight.data.normal_(std=self.config.initializer_range)",
                1,
            ),
        ),
    ),
    Mutant("byteformer: post_init left out", *_BYTEFORMER, (("        self.post_init()\n", "", 2),)),
    Mutant(
        "byteformer: only the old flash-attention flag", *_BYTEFORMER, (("    _supports_flash_attn = True\n", "", 1),)
    ),
)


def broken_kit(kit: Path, mutant: Mutant, target: Path) -> None:
    """Copies a kit and breaks every copy of the mutant's file in it.

    Raises:
        UserError: the text to replace is not there, or not as often as it was: the mutant has to follow the model.
    """
    shutil.copytree(kit, target)
    files = [file for file in target.rglob(mutant.file) if "packages" in file.parts or "folders" in file.parts]
    for file in files:
        text = file.read_text(encoding="utf-8")
        for old, new, times in mutant.replacements:
            if text.count(old) != times:
                raise UserError(
                    f"mutant {mutant.name!r}: {mutant.file} holds {text.count(old)} times, expected {times}: {old.strip()!r}"
                )
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
