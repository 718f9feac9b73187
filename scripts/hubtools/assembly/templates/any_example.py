"""Loads the model of this folder and says how large it is."""

from pathlib import Path

from transformers import AutoModel

model = AutoModel.from_pretrained(Path(__file__).parent, trust_remote_code=True).eval()
print(f"{type(model).__name__} with {sum(parameter.numel() for parameter in model.parameters()):,} parameters")
