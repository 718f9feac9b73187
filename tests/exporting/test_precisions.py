"""bfloat16 and float16 on the two trained models: what a user gets is what float32 gives, but for the last digits."""

from functools import lru_cache

import pytest
import torch
from hubtools.demos import held_out as demos
from hubtools.demos.held_out import accuracy, logits_of
from hubtools.packages import ROOT
from measure import relative_error
from transformers import AutoModelForImageClassification, AutoModelForVideoClassification

MODELS = {
    "byteformer-digits": AutoModelForImageClassification,
    "llava-vit-moving-digits": AutoModelForVideoClassification,
}
# Of the logits' largest magnitude: eight bits and eleven of them, through a few layers.
FARTHEST = {torch.bfloat16: 0.03, torch.float16: 0.01}


held_out = lru_cache(demos.held_out)  # drawing clips takes longer than classifying them


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_is_as_accurate(name):
    data = held_out(name)
    logits = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = MODELS[name].from_pretrained(ROOT / "hub_repos" / name, trust_remote_code=True, torch_dtype=dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        logits[dtype] = logits_of(model.eval(), data)
    right = {dtype: accuracy(found, data) for dtype, found in logits.items()}
    assert right[torch.float32] > 0.95 and len(data.labels) > 300
    for dtype, farthest in FARTHEST.items():
        assert abs(right[dtype] - right[torch.float32]) <= 0.003, (dtype, right)
        assert relative_error(logits[dtype], logits[torch.float32]) < farthest, dtype
