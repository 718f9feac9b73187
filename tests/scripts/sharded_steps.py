"""A few training steps under torch's fully sharded data parallel on CPUs; prints each model's
losses as JSON. Started by torchrun.

torchrun --standalone --nproc_per_node 2 tests/scripts/sharded_steps.py llavavit byteformer
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

BATCH, STEPS = 8, 5


def build(package):
    if package == "llavavit":
        from llavavit import LlavaViTConfig, LlavaViTForVideoClassification

        config = LlavaViTConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            patch_size=8,
            image_size=32,
            num_labels=4,
        )
        return LlavaViTForVideoClassification(config), {"pixel_values": torch.randn(BATCH, 3, 2, 32, 32)}
    from byteformer import ByteFormerConfig, ByteFormerForImageClassification

    config = ByteFormerConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1, conv_kernel_size=4, max_position_embeddings=64,
        window_sizes=[16], window_shifts=[0, 8], downsample=[True, False], mask_padding=True, num_labels=4,
    )  # fmt: skip
    return ByteFormerForImageClassification(config), {"input_ids": torch.randint(0, 256, (BATCH, 60))}


def shard(model, mesh):
    """Every layer of a class in `_no_split_modules` is a unit, the rest goes with the model."""
    names = set(model._no_split_modules)
    units = [module for module in model.modules() if type(module).__name__ in names]
    if {type(unit).__name__ for unit in units} != names:
        raise SystemExit(f"the model names {sorted(names)}, but not all of them are in it")
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)


def losses_of(package):
    torch.manual_seed(0)
    model, inputs = build(package)
    labels = torch.randint(0, 4, (BATCH,))
    rank, world = dist.get_rank(), dist.get_world_size()
    shard(model, init_device_mesh("cpu", (world,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        loss = model(
            **{name: value.chunk(world)[rank] for name, value in inputs.items()}, labels=labels.chunk(world)[rank]
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean.item() / world)
    return losses


def main(*packages):
    dist.init_process_group("gloo")
    losses = {package: losses_of(package) for package in packages}
    if dist.get_rank() == 0:
        print(json.dumps(losses))
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may abort an interpreter that winds down in order, after all is done


if __name__ == "__main__":
    main(*sys.argv[1:])
