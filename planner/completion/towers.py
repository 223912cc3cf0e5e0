"""A tower: from what is known of an entity to its embedding.

    embedding = [x, φ] → hidden → hidden → out (+ free)

x are features, φ inputs that are learned per entity, *free* an embedding of its own, zero at first. Hidden layers have
the activation z · sigmoid(1.702 z), near that of Hendrycks and Gimpel (2016), "Gaussian error linear units". Without
hidden layers only the free embedding is left: factorisation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.completion.parameters import Array

STEEPNESS = 1.702
OUTPUT_SCALE = 0.6  # of the last layer's first weights
FACTOR_DEVIATION = 0.3  # of the free embedding where it is all there is


@dataclass(frozen=True, eq=False)
class Tower:
    """The shapes of a tower, its features, and the prefix of its parameters' names."""

    prefix: str
    features: NDArray[np.floating]
    hidden: int
    out: int
    learned_inputs: int
    free: bool

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the parameters, by name."""
        entities, known = self.features.shape
        found: dict[str, tuple[int, ...]] = {}
        if self.hidden:
            widths = known + self.learned_inputs, self.hidden, self.hidden, self.out
            found["input"] = (entities, self.learned_inputs)
            for layer in range(3):
                found[f"weight{layer}"] = widths[layer : layer + 2]
                found[f"bias{layer}"] = (widths[layer + 1],)
        if self.free or not self.hidden:
            found["free"] = (entities, self.out)
        return {f"{self.prefix}.{name}": shape for name, shape in found.items()}

    def initialise(self, values: dict[str, Array], rng: np.random.Generator) -> None:
        """Fill parameters: N(0, 1 / inputs) for weights, N(0, 1) for φ, zero for biases and free embeddings."""
        if not self.hidden:
            own = values[f"{self.prefix}.free"]
            own[:] = rng.normal(0, FACTOR_DEVIATION, own.shape)
            return
        own = values[f"{self.prefix}.input"]
        own[:] = rng.normal(0, 1, own.shape)
        for layer in range(3):
            weight = values[f"{self.prefix}.weight{layer}"]
            weight[:] = rng.normal(0, 1 / np.sqrt(max(1, len(weight))), weight.shape)
        weight *= OUTPUT_SCALE

    def forward(self, values: dict[str, Array]) -> tuple[Array, list[Array]]:
        """Return the embeddings ``[entities, out]``, and what `backward` needs of the way there."""
        free = values.get(f"{self.prefix}.free")
        if not self.hidden:
            assert free is not None
            return free, []
        x: Array = np.concatenate([self.features, values[f"{self.prefix}.input"]], axis=1)
        kept = [x]
        for layer in range(2):
            z = x @ values[f"{self.prefix}.weight{layer}"]
            z += values[f"{self.prefix}.bias{layer}"]
            x, slope = _activated(z)
            kept += [slope, x]
        out = x @ values[f"{self.prefix}.weight2"]
        out += values[f"{self.prefix}.bias2"]
        if free is not None:
            out += free
        return out, kept

    def backward(self, values: dict[str, Array], gradients: dict[str, Array], kept: list[Array], slope: Array) -> None:
        """Fill the gradients of the parameters, given that of the embeddings."""
        if f"{self.prefix}.free" in gradients:
            gradients[f"{self.prefix}.free"][:] = slope
        if not self.hidden:
            return
        inputs, slopes = kept[0::2], kept[1::2]
        for layer in (2, 1, 0):
            if layer < 2:
                slope *= slopes[layer]
            np.matmul(inputs[layer].T, slope, out=gradients[f"{self.prefix}.weight{layer}"])
            slope.sum(axis=0, out=gradients[f"{self.prefix}.bias{layer}"])
            if layer:
                slope = slope @ values[f"{self.prefix}.weight{layer}"].T
        known = self.features.shape[1]  # the features themselves are not learned
        gradients[f"{self.prefix}.input"][:] = slope @ values[f"{self.prefix}.weight0"][known:].T


def _activated(z: Array) -> tuple[Array, Array]:
    """Return x = z · sigmoid(s z) and its derivative, gate + s x (1 - gate); z is overwritten."""
    gate = z * -STEEPNESS
    np.exp(gate, out=gate)
    gate += 1
    np.reciprocal(gate, out=gate)
    z *= gate
    slope = z * STEEPNESS
    slope *= 1 - gate
    slope += gate
    return z, slope
