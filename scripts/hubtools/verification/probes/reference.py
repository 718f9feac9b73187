"""Compares a folder with the user's own original: configuration, structure, and outputs for the same weights and
inputs.

The reference gets the weights that the folder should hold: the folder's, and where a checkpoint was given and differs,
the checkpoint's. Its state dict may be in any layout that `hubtools.assembly.layouts` knows.
"""

import inspect
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import torch

from hubtools.assembly.checkpoint import open_checkpoint
from hubtools.assembly.layouts import Part, hub_shapes, recognise, to_hub_layout
from hubtools.errors import UserError, some
from hubtools.facts import Layout
from hubtools.packages import package_named
from hubtools.verification.references import load_function

from .folder import case_of, cases_of
from .forwards import TOLERANCE
from .protocol import CheckFailed, CheckSkipped, Reporter, read_job
from .tensors import Differences, OutputDifference, compare_outputs, read_tensor

OUTPUT_NAMES = ("last_hidden_state", "pooler_output", "logits")


class ReferenceProbe:
    """The three alignment checks. Each builds on the one before."""

    def __init__(self, job: Mapping, reporter: Reporter):
        self.job = job
        self.reporter = reporter
        self.package = package_named(job["package"])
        self.entries = {entry["name"]: entry for entry in job["tensors"]}
        self.reference: Optional[torch.nn.Module] = None
        self.layout: Optional[Layout] = None
        self.parts: Dict[str, Part] = {}

    def steps(self) -> Dict[str, Callable[[], str]]:
        return {
            "reference: configuration": self.configuration,
            "reference: structure": self.structure,
            "reference: forward": self.forward,
        }

    # -- configuration

    def configuration(self) -> str:
        path, name = self.job["reference"]
        self.reporter.using(f"reference {path}")
        build = load_function(path, name)
        self.reporter.using(f"reference {path}: {name}(config)")
        reference = build(dict(self.job["config"]))
        if not isinstance(reference, torch.nn.Module):
            raise UserError(
                f"reference {path}: {name}(config) gives a {type(reference).__name__}; a torch.nn.Module is needed"
            )
        self.reporter.using(None)
        self.reference = reference.float().eval()
        shapes = self.hub_shapes()
        try:
            found = self.package.sizes_of(shapes)
        except KeyError as missing:
            raise CheckFailed(
                f"the reference ({self.layout.name} layout) has no {missing}; its keys: {some(shapes)}"
            ) from missing
        found.update(self.own_configuration())
        problems = [f"{key} is {value!r} in the reference, {self.job['config'].get(key)!r} in config.json"
                    for key, value in found.items() if value != self.job["config"].get(key)]  # fmt: skip
        if problems:
            raise CheckFailed("\n".join([f"{len(problems)} of {len(found)} values differ: {problems[0]}", *problems]))
        values = [f"{key} = {value}" for key, value in found.items()]
        return "\n".join([f"{len(found)} values agree with the reference's: {', '.join(found)}", *values])

    def hub_shapes(self) -> Dict[str, Tuple[int, ...]]:
        """The reference's shapes under the keys of the Hub layout, without the base model's prefix."""
        state = self.reference.state_dict()
        try:
            self.layout = recognise(self.package.name, state)
        except UserError as error:
            raise CheckFailed(f"the reference's state dict: {error}") from error
        return hub_shapes(self.layout, self.package, {name: tensor.shape for name, tensor in state.items()})

    def own_configuration(self) -> Dict[str, Any]:
        """What the reference's own `config`, if it keeps one, says about values that config.json has, too."""
        own = getattr(self.reference, "config", None)
        own = (
            own.to_dict()
            if hasattr(own, "to_dict")
            else own
            if isinstance(own, Mapping)
            else getattr(own, "__dict__", {})
        )
        return {key: own[key] for key in self.job["own_keys"] if key in own}

    # -- structure

    def structure(self) -> str:
        self.need(self.layout, "the reference was not built")
        state = {name: tensor for name, tensor in self.reference.state_dict().items()}
        expected = dict(self.entries)
        left_out = []
        if not any("classifier." in name for name in state):
            left_out = [name for name in expected if name.startswith("classifier.")]
        elif not any(name.startswith("classifier.") for name in expected):
            left_out = [name for name in state if name.startswith("classifier.")]
        names = [name for name in state if name not in left_out]
        try:
            _, parts = to_hub_layout(self.package.name, names, [name for name in expected if name not in left_out])
        except UserError as error:
            raise CheckFailed(str(error).replace("the checkpoint", "the reference", 1)) from error
        problems = []
        for name, part in parts.items():
            shape = part.shape(state[part.source].shape)
            if shape != tuple(expected[name]["shape"]):
                problems.append(
                    f"{name} has shape {shape} in the reference, {tuple(expected[name]['shape'])} in the folder"
                )
        if problems:
            raise CheckFailed("\n".join([f"{len(problems)} of {len(parts)} tensors differ: {problems[0]}", *problems]))
        self.parts = parts
        note = f"; not compared, because one side has none: {some(left_out)}" if left_out else ""
        return f"{len(parts)} tensors, names and shapes agree ({self.layout.name} layout){note}"

    # -- forward

    def forward(self) -> str:
        self.need(self.parts, "the structures do not agree")
        recorded = torch.load(self.job["exchange"], weights_only=True) if Path(self.job["exchange"]).exists() else {}
        self.need(recorded, "the folder's own forward pass failed")
        self.load_weights()
        altered = self.weights_after_loading()
        differences: List[OutputDifference] = []
        for case in cases_of(recorded):
            differences += self.compare_case(case, *case_of(recorded, case))
        worst = max(differences, key=lambda difference: difference.ratio)
        lines = [str(difference) for difference in differences]
        if altered or not worst.ratio <= TOLERANCE:
            summary = f"{worst} (allowed: {TOLERANCE:g})"
            raise CheckFailed("\n".join([f"{altered[0]}; {summary}" if altered else summary, *altered[1:], *lines]))
        summary = (
            f"largest difference {worst.largest:.2g}, {worst.ratio:.1e} of the largest magnitude (allowed: "
            f"{TOLERANCE:g})"
        )
        return "\n".join([f"{summary}, on {', '.join(cases_of(recorded))}", *lines])

    def load_weights(self) -> None:
        """Writes the weights into the reference through views of its own tensors, then through its own loading."""
        state = self.reference.state_dict()
        for name, part in self.parts.items():
            with torch.no_grad():
                part.of(state[part.source]).copy_(read_tensor(self.job["folder"], self.entries[name]))
        if self.job["changed"]:
            with (
                open_checkpoint(self.job["checkpoint"], self.job.get("key"), self.job.get("prefix")) as checkpoint,
                torch.no_grad(),
            ):
                _, sources = to_hub_layout(self.package.name, checkpoint.names(), self.entries)
                for name in set(self.job["changed"]) & set(self.parts):
                    stored = getattr(torch, self.entries[name]["dtype"])
                    tensor = sources[name].of(checkpoint.tensor(sources[name].source)).to(stored)
                    self.parts[name].of(state[self.parts[name].source]).copy_(tensor)
        self.reference.load_state_dict(state, strict=True)

    def weights_after_loading(self) -> List[str]:
        """What the reference made of its weights: one that alters them is compared with other weights than it should
        be."""
        state, differences = self.reference.state_dict(), Differences()
        for name, part in self.parts.items():
            if name not in self.job["changed"]:
                differences.add(
                    name, part.of(state[part.source]), read_tensor(self.job["folder"], self.entries[name]).float()
                )
        if not differences.problems:
            return []  # as it should be
        return differences.describe(
            len(self.parts), "differ from the folder's after loading them into the reference"
        ).split("\n")

    def compare_case(
        self, case: str, inputs: Dict[str, torch.Tensor], expected: Dict[str, torch.Tensor]
    ) -> List[OutputDifference]:
        with torch.inference_mode():
            found = named_outputs(self.call(inputs), expected, case)
        return compare_outputs(expected, found, case)

    def call(self, inputs: Dict[str, torch.Tensor]) -> Any:
        """Passes inputs by name where the reference knows the name, else in order."""
        known = inspect.signature(self.reference.forward).parameters
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        if open_ended or all(name in known for name in inputs):
            return self.reference(**inputs)
        return self.reference(*inputs.values())

    @staticmethod
    def need(value: object, otherwise: str) -> None:
        if not value:
            raise CheckSkipped(f"not run: {otherwise}")


def named_outputs(outputs: Any, expected: Mapping[str, torch.Tensor], case: str) -> Dict[str, torch.Tensor]:
    """A reference's outputs under our names: by its own names where it has any, else by shape."""
    if isinstance(outputs, Mapping):  # also transformers' ModelOutput
        found = {name: outputs[name] for name in OUTPUT_NAMES if isinstance(outputs.get(name), torch.Tensor)}
        states = outputs.get("hidden_states") or ()
        found.update(
            {f"hidden_states.{i}": state for i, state in enumerate(states) if f"hidden_states.{i}" in expected}
        )
    else:
        listed = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        found = {}
        for output in listed:
            fitting = [
                name
                for name in OUTPUT_NAMES
                if name in expected and name not in found and _fits(output, expected[name])
            ]
            found.update({fitting[0]: output} if fitting else {})
    if not any(name in expected for name in found):
        wanted = ", ".join(f"{name} {tuple(expected[name].shape)}" for name in OUTPUT_NAMES if name in expected)
        raise CheckFailed(f"{case}: the reference gives {_outline(outputs)}, in which none of {wanted} was found")
    return found


def _fits(output: Any, expected: torch.Tensor) -> bool:
    return isinstance(output, torch.Tensor) and output.shape == expected.shape


def _outline(outputs: Any) -> str:
    if isinstance(outputs, torch.Tensor):
        return f"a tensor of shape {tuple(outputs.shape)}"
    if isinstance(outputs, Mapping):
        return f"the names {', '.join(map(str, outputs))}"
    if isinstance(outputs, (tuple, list)):
        return f"{len(outputs)} outputs: {'; '.join(_outline(output) for output in outputs)}"
    return f"a {type(outputs).__name__}"


def main() -> None:
    job, reporter = read_job(), Reporter()
    torch.manual_seed(0)
    try:
        reporter.run(job["checks"], ReferenceProbe(job, reporter).steps())
    except UserError as error:
        reporter.send("usage", message=str(error))
    reporter.send("done")


if __name__ == "__main__":
    main()
