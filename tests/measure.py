"""The one measure of how far a result is from what it should be, and how far it may be.

Equal bits are asked of weights, files and hashes alone. What a model computes depends in its last digits on the
processor, the number of threads and where in memory its inputs lie, so outputs and gradients are compared by their
largest magnitude.
"""

from typing import Mapping

import torch

OUTPUTS, GRADIENTS = 1e-5, 1e-4
# A gradient that cancels out, as that of keys' biases does, is rounding noise of this share of the model's largest one.
VANISHING = 1e-3


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest magnitude of `expected`; infinite where either is not finite. Shapes must
    agree."""
    assert got.shape == expected.shape, f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    got, expected = got.detach().double().cpu(), expected.detach().double().cpu()
    if not (torch.isfinite(got).all() and torch.isfinite(expected).all()):
        return float("inf")
    difference = (got - expected).abs().max().item()
    return difference / max(expected.abs().max().item(), torch.finfo(torch.float32).tiny)


def close(got: torch.Tensor, expected: torch.Tensor, tolerance: float = OUTPUTS) -> bool:
    """Whether two outputs are the same but for the last digits."""
    return relative_error(got, expected) <= tolerance


def assert_outputs_close(
    got: torch.Tensor, expected: torch.Tensor, what: str = "outputs", tolerance: float = OUTPUTS
) -> None:
    error = relative_error(got, expected)
    assert error <= tolerance, f"{what}: off by {error:.1e} of the largest magnitude (allowed: {tolerance:g})"


def assert_gradients_close(got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Each gradient by its own largest magnitude, and those that vanish by a share of the model's largest."""
    assert got.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        scale = max(gradient.abs().max().item(), VANISHING * largest)
        error = (got[name] - gradient).abs().max().item() / scale
        assert error <= GRADIENTS, (
            f"gradient of {name}: off by {error:.1e} of its largest magnitude (allowed: {GRADIENTS:g})"
        )
