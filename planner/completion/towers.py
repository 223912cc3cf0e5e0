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
        own = {name: values.get(f"{self.prefix}.{name}") for name in ("input", "free")}
        if own["input"] is None:
            assert own["free"] is not None
            return own["free"], []
        x = np.concatenate([self.features, own["input"]], axis=1)
        kept: list[Array] = [x]
        for layer in range(2):
            z = x @ values[f"{self.prefix}.weight{layer}"] + values[f"{self.prefix}.bias{layer}"]
            gate = 1 / (1 + np.exp(-STEEPNESS * z))
            x = z * gate
            kept += [gate * (1 + STEEPNESS * z * (1 - gate)), x]
        out = x @ values[f"{self.prefix}.weight2"] + values[f"{self.prefix}.bias2"]
        return (out if own["free"] is None else out + own["free"]), kept

    def backward(self, values: dict[str, Array], gradients: dict[str, Array], kept: list[Array], slope: Array) -> None:
        """Fill the gradients of the parameters, given that of the embeddings."""
        if f"{self.prefix}.free" in gradients:
            gradients[f"{self.prefix}.free"][:] = slope
        if not self.hidden:
            return
        inputs, slopes = kept[0::2], kept[1::2]
        for layer in (2, 1, 0):
            if layer < 2:
                slope = slope * slopes[layer]
            gradients[f"{self.prefix}.weight{layer}"][:] = inputs[layer].T @ slope
            gradients[f"{self.prefix}.bias{layer}"][:] = slope.sum(axis=0)
            slope = slope @ values[f"{self.prefix}.weight{layer}"].T
        gradients[f"{self.prefix}.input"][:] = slope[:, self.features.shape[1] :]
