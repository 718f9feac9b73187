"""What the forward checks of both models share."""

from typing import Dict, Mapping

import torch

from .protocol import CheckFailed
from .tensors import compare_outputs, largest_ratio

TOLERANCE = 1e-5  # of an output's largest magnitude, in float32
Outputs = Dict[str, torch.Tensor]


class Forwards:
    """Runs a model on small inputs. A model's own checks, its facts' `forwards`, are mixed in by `forwards_of`.

    Args:
        model: in float32 and eval mode, with or without a head.

    Attributes:
        recorded: inputs and outputs of the cases that other processes repeat, as "case/in/name" and "case/out/name".
    """

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.backbone = model.base_model
        self.config = model.config
        self.recorded: Outputs = {}

    def check(self, subject: str) -> str:
        """Runs the check "forward: <subject>": the method of that name."""
        return getattr(self, subject.replace(" ", "_"))()

    def run(self, **inputs) -> Outputs:
        """The outputs of backbone and head by name; None is left out, hidden states are numbered."""
        before = {name: tensor.clone() for name, tensor in inputs.items()}
        with torch.inference_mode():
            outputs = self.backbone(**inputs, output_hidden_states=True)
            found = {"last_hidden_state": outputs.last_hidden_state}
            optional = {name: outputs.get(name) for name in ("pooler_output", "merged_states")}
            found.update({name: tensor for name, tensor in optional.items() if tensor is not None})
            found.update({f"hidden_states.{i}": state for i, state in enumerate(outputs.hidden_states)})
            if self.backbone is not self.model:
                found["logits"] = self.model(**self.for_head(inputs)).logits
        expect(
            {name for name in inputs if not torch.equal(inputs[name], before[name])},
            set(),
            "inputs changed by the model",
        )
        broken = [name for name, tensor in found.items() if not torch.isfinite(tensor).all()]
        expect(broken, [], "outputs with NaN or infinity")
        return found

    def for_head(self, inputs: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The backbone's inputs as the model with its head takes them."""
        return inputs

    def record(self, case: str, inputs: Mapping[str, torch.Tensor], outputs: Outputs) -> None:
        self.recorded.update({f"{case}/in/{name}": tensor.contiguous() for name, tensor in inputs.items()})
        self.recorded.update({f"{case}/out/{name}": tensor.contiguous() for name, tensor in outputs.items()})

    def check_sizes(self, outputs: Outputs, batch: int, tokens: int) -> None:
        """Shapes of the outputs, and as many hidden states as layers and one."""
        width = self.config.hidden_size
        expect(tuple(outputs["last_hidden_state"].shape), (batch, tokens, width), "shape of last_hidden_state")
        if "pooler_output" in outputs:
            expect(tuple(outputs["pooler_output"].shape), (batch, width), "shape of pooler_output")
        if "logits" in outputs:
            expect(tuple(outputs["logits"].shape), (batch, self.config.num_labels), "shape of logits")
        states = sum(name.startswith("hidden_states.") for name in outputs)
        expect(states, self.config.num_hidden_layers + 1, "number of hidden states")

    def compare_backends(self, cases: Mapping[str, Mapping[str, torch.Tensor]]) -> str:
        """eager equals sdpa on every case, and gives attention probabilities that sum to 1."""
        chosen = self.config._attn_implementation
        differences = []
        try:
            for case, inputs in cases.items():
                self.config._attn_implementation = "sdpa"
                expected = self.run(**inputs)
                self.config._attn_implementation = "eager"
                differences += compare_outputs(self.run(**inputs), expected, f"eager and sdpa on {case}")
                self.check_attentions(inputs)
        finally:
            self.config._attn_implementation = chosen
        return f"eager equals sdpa within {largest_ratio(differences, TOLERANCE):.1e} (loaded with {chosen})"

    def check_attentions(self, inputs: Mapping[str, torch.Tensor]) -> None:
        with torch.inference_mode():
            attentions = self.backbone(**inputs, output_attentions=True).attentions
        expect(len(attentions or ()), self.config.num_hidden_layers, "number of attentions")
        for layer, probabilities in enumerate(attentions):
            runs = [probabilities] if isinstance(probabilities, torch.Tensor) else probabilities
            off = max(float((run.sum(-1) - 1).abs().max()) for run in runs)
            if not off <= 1e-4:
                raise CheckFailed(f"attention probabilities of layer {layer} miss the sum 1 by {off:.3g}")

    # -- what checks compare with; they import nothing

    def expect(self, found, expected, what: str) -> None:
        expect(found, expected, what)

    def expect_equal(self, found: Outputs, expected: Outputs, what: str) -> float:
        """Fails unless all outputs are within the tolerance; gives the largest relative difference."""
        return expect_equal(found, expected, what)

    def expect_distinct(self, outputs: torch.Tensor, what: str) -> None:
        """Fails when different inputs give the same output: a model that ignores its input is finite, too."""
        for row in outputs[1:]:
            if torch.equal(row, outputs[0]):
                raise CheckFailed(f"{what}: different inputs give the same output")

    def rows(self, outputs: Outputs, index: slice) -> Outputs:
        return {name: tensor[index] for name, tensor in outputs.items()}

    def random(self, *shape: int, seed: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def forwards_of(checks: type, model: torch.nn.Module) -> Forwards:
    """The forward checks of a model, by its facts' `forwards`."""
    return type(checks.__name__, (checks, Forwards), {})(model)


def expect(found, expected, what: str) -> None:
    if found != expected:
        raise CheckFailed(f"{what}: {_show(found)}, expected {_show(expected)}")


def _show(value) -> str:
    return ", ".join(map(str, sorted(value))) or "none" if isinstance(value, (set, list)) else str(value)


def expect_equal(found: Outputs, expected: Outputs, what: str) -> float:
    """Fails unless all outputs are within the tolerance; gives the largest relative difference."""
    return largest_ratio(compare_outputs(found, expected, what), TOLERANCE)
