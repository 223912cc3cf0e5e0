"""One network for everything: the baselines that Pitot is held against (MLSys 2025, Section 5.1).

    log C_ijK = m + a_j + b_i + f(A x_i + B y_j + sum over k in K of gate_ijk · C x_k)

with features and learned inputs x of workloads and y of platforms, and f two hidden layers of one network. In the
*monolithic* network gate is 1; with *attention* it is sigmoid((Q x_i + R y_j) · (K x_k)), so that what presses on whom
depends on both. Unlike `planner.completion.network` every observation goes through the network.

Deviation: the paper does not print these baselines' layers; theirs may be wider.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.completion.additive import fit_additive
from planner.completion.losses import Loss, loss_slopes, loss_values
from planner.completion.network import Batch, batch_of, platform_inputs
from planner.completion.observations import Floats, Ints, Observations, standardised
from planner.completion.parameters import Array, Parameters, Schedule

KEY = 16  # length of the attention's keys
CHUNK = 8192  # rows that are predicted at once


@dataclass(frozen=True)
class Monolith:
    """Widths of the network, and whether those beside are attended to or merely summed."""

    hidden: int = 128
    learned_inputs: int = 4
    attention: bool = False
    quantiles: tuple[float, ...] = (0.5,)

    def build(self, observations: Observations, seed: int) -> "MonolithNetwork":
        """Return an untrained network for the axes of observations."""
        return MonolithNetwork(self, observations, seed)


class MonolithNetwork:
    """A monolithic network; has what training needs, as `planner.completion.network.Network`."""

    def __init__(self, architecture: Monolith, observations: Observations, seed: int) -> None:
        self.architecture = architecture
        self.workloads, self.platforms = len(observations.workloads), len(observations.platforms)
        self._x = standardised(observations.workloads.features)
        self._y = platform_inputs(observations, 0.0)
        width, learned = architecture.hidden, architecture.learned_inputs
        x_width, y_width = (part.shape[1] + learned for part in (self._x, self._y))
        shapes: dict[str, tuple[int, ...]] = {
            "x.input": (self.workloads, learned),
            "y.input": (self.platforms, learned),
            "A.weight": (x_width, width),
            "B.weight": (y_width, width),
            "C.weight": (x_width, width),
            "bias": (width,),
            "hidden.weight": (width, width),
            "hidden.bias": (width,),
            "out.weight": (width, 1),
            "a": (self.platforms,),
            "b": (self.workloads,),
        }
        if architecture.attention:
            shapes |= {"Q.weight": (x_width, KEY), "R.weight": (y_width, KEY), "K.weight": (x_width, KEY)}
        self.parameters = Parameters(shapes)
        rng = np.random.default_rng(seed)
        for name, part in self.parameters.values.items():
            if name.endswith("input"):
                part[:] = rng.normal(0, 1, part.shape)
            elif name.endswith("weight"):
                part[:] = rng.normal(0, 1 / np.sqrt(len(part)), part.shape)
        self.parameters.values["C.weight"][:] *= 0.1
        self._base = fit_additive(observations)
        self.parameters.values["a"][:] = self._base.platform
        self.parameters.values["b"][:] = self._base.workload

    def decay(self, schedule: Schedule) -> Array:
        """Return the decay of each parameter: only weights have one."""
        decay = np.zeros_like(self.parameters.vector)
        for name, part in self.parameters.views(decay).items():
            part[...] = schedule.weight_decay if name.endswith("weight") else 0.0
        return decay

    def batch(self, observations: Observations, weight: float = 1.0) -> Batch:
        """Return rows of one level, as `planner.completion.network.Network.batch` does."""
        return batch_of(observations, self._base.mean, self.parameters.vector.dtype, weight)

    def predict(self, observations: Observations, head: int = 0) -> Floats:
        """Return the predicted log time of each row."""
        found = np.empty(len(observations))
        level = observations.level
        for one in np.unique(level):
            rows = np.flatnonzero(level == one)
            for part in np.array_split(rows, -(-len(rows) // CHUNK)):
                found[part] = self._forward(self.batch(observations.take(part)))[0]
        return found + self._base.mean

    def loss(self, batches: Sequence[Batch], loss: Loss) -> float:
        """Return the weighted mean loss over batches."""
        total = 0.0
        for batch in batches:
            values = loss_values(loss, self._forward(batch)[0] - batch.target, 0.5)
            total += batch.weight * float(values.mean())
        return total

    def descend(self, batches: Sequence[Batch], loss: Loss) -> None:
        """Leave the gradient of `loss` in ``parameters.gradient``."""
        self.parameters.gradient[:] = 0
        for batch in batches:
            predicted, way = self._forward(batch)
            slope = loss_slopes(loss, predicted - batch.target, 0.5)
            self._backward(batch, way, slope * (batch.weight / len(slope)))

    def _entities(self) -> tuple[Array, Array]:
        values = self.parameters.values
        parts = (self._x, values["x.input"]), (self._y, values["y.input"])
        x, y = (np.concatenate(part, axis=1).astype(self.parameters.vector.dtype) for part in parts)
        return x, y

    def _forward(self, batch: Batch) -> tuple[Array, dict[str, Array]]:
        values = self.parameters.values
        x, y = self._entities()
        i, j, k = batch.own % self.workloads, batch.own // self.workloads, batch.others % self.workloads
        z = (x @ values["A.weight"])[i] + (y @ values["B.weight"])[j] + values["bias"]
        pressing = (x @ values["C.weight"])[k]  # [n, c, hidden]
        way = {"x": x, "y": y, "pressing": pressing}
        if self.architecture.attention:
            query = (x @ values["Q.weight"])[i] + (y @ values["R.weight"])[j]
            keys = (x @ values["K.weight"])[k]
            gate = 1 / (1 + np.exp(-(query[:, None] * keys).sum(axis=2)))
            way |= {"query": query, "keys": keys, "gate": gate}
            pressing = gate[:, :, None] * pressing
        z = z + pressing.sum(axis=1)
        way["first"] = first = np.maximum(z, 0)
        way["second"] = second = np.maximum(first @ values["hidden.weight"] + values["hidden.bias"], 0)
        return (second @ values["out.weight"])[:, 0] + values["a"][j] + values["b"][i], way

    def _backward(self, batch: Batch, way: dict[str, Array], slope: Array) -> None:
        values, gradients = self.parameters.values, self.parameters.gradients
        i, j, k = batch.own % self.workloads, batch.own // self.workloads, batch.others % self.workloads
        gradients["a"] += np.bincount(j, slope, self.platforms)
        gradients["b"] += np.bincount(i, slope, self.workloads)
        gradients["out.weight"] += way["second"].T @ slope[:, None]
        up = slope[:, None] * values["out.weight"][:, 0] * (way["second"] > 0)
        gradients["hidden.weight"] += way["first"].T @ up
        gradients["hidden.bias"] += up.sum(axis=0)
        up = (up @ values["hidden.weight"].T) * (way["first"] > 0)
        gradients["bias"] += up.sum(axis=0)
        self._into("A", "x", i, up, way)
        self._into("B", "y", j, up, way)
        for other in range(k.shape[1]):
            pressed = up
            if self.architecture.attention:
                gate = way["gate"][:, other, None]
                open_up = (up * way["pressing"][:, other]).sum(axis=1, keepdims=True) * gate * (1 - gate)
                self._into("Q", "x", i, open_up * way["keys"][:, other], way)
                self._into("R", "y", j, open_up * way["keys"][:, other], way)
                self._into("K", "x", k[:, other], open_up * way["query"], way)
                pressed = up * gate
            self._into("C", "x", k[:, other], pressed, way)

    def _into(self, weight: str, axis: str, rows: Ints, slope: Array, way: dict[str, Array]) -> None:
        """Add what a gathered product passes back: to its weight, and to the learned inputs of its axis."""
        entities = way[axis]
        chosen = (np.arange(len(entities))[:, None] == rows).astype(slope.dtype)  # a one-hot product adds up rows
        by_entity = chosen @ slope
        self.parameters.gradients[f"{weight}.weight"] += entities.T @ by_entity
        learned = self.architecture.learned_inputs
        back = by_entity @ self.parameters.values[f"{weight}.weight"].T
        self.parameters.gradients[f"{axis}.input"] += back[:, len(back[0]) - learned :]
