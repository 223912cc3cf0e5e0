#!/usr/bin/env python
"""Train the predictor that IPA was published with (JSys 2024, section 4.4), and write it as ONNX.

    pip install -e ".[training]"
    scripts/train_lstm.py --counts DIR/twitter_counts_per_second.txt.gz --out simulator/adaptation/lstm.onnx

An LSTM of 25 units reads the 12 maxima of the last 120 s and says the largest count of the next 20 s. It learns from
the first 14 days of the counts (an eighth of each, as in the published workloads), a window every 10 s; the last tenth
of them chooses the epoch that is kept. All is divided by the mean of the window's maxima, so that what is learned holds
at any scale. The loss is what errors are reported in, |p - y| / ((p + y) / 2).
"""

import gzip
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from planner.cli.app import console, new_app, run
from planner.files import replacing
from simulator.adaptation.predictors import AHEAD_S, STEP_S, WINDOW_S

try:
    import torch
except ImportError:
    raise SystemExit('error: torch is not installed; pip install -e ".[training]"') from None

app = new_app("Train the LSTM that predicts load.")

TRAINING_S = 14 * 86_400
DAMPING = 8  # published workloads are an eighth of the counts
UNITS = 25
BATCH = 512
VALIDATION = 0.1
SMALLEST = 0.1  # of the mean: seconds in which the stream was down are not what is learned


class Lstm(torch.nn.Module):
    """Maxima over their mean, ``[window, step, 1]``, to the largest count ahead over it, ``[window, 1]``."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(1, UNITS, batch_first=True)
        self.dense = torch.nn.Linear(UNITS, 1)
        torch.nn.init.ones_(self.dense.bias)  # begin with the mean; below 0 the loss has no slope

    def forward(self, maxima: torch.Tensor) -> torch.Tensor:
        """Return what is ahead."""
        return self.dense(self.lstm(maxima)[0][:, -1])


@app.command()
def train(
    counts: Annotated[Path, typer.Option(help="Counts per second, a number a line, gzip.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the windows.")] = 15,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 1,
) -> None:
    """Train, say the error on the windows held back after every epoch, and write the best."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    with gzip.open(counts, "rt") as file:
        load = np.floor(np.loadtxt(file, dtype=np.float64, max_rows=TRAINING_S) / DAMPING)
    maxima, ahead = windows(load)
    held_back = int(len(maxima) * (1 - VALIDATION))
    model = Lstm()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    best, kept = np.inf, model.state_dict()
    for epoch in range(epochs):
        for chosen in torch.randperm(held_back).split(BATCH):
            optimiser.zero_grad()
            loss_of(model(maxima[chosen]), ahead[chosen]).backward()
            optimiser.step()
        schedule.step()
        with torch.no_grad():
            error = 100 * float(loss_of(model(maxima[held_back:]), ahead[held_back:]))
        console.print(f"epoch {epoch + 1}: SMAPE {error:.2f} % on what was held back", highlight=False)
        if error < best:
            best, kept = error, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    write(model, out)
    console.print(f"{out}: SMAPE {best:.2f} %", highlight=False, soft_wrap=True)


def windows(load: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``[window, step, 1]`` maxima and ``[window, 1]`` largest counts ahead, over the mean of the maxima."""
    starts = np.arange(0, len(load) - WINDOW_S - AHEAD_S + 1, STEP_S)[:, np.newaxis]
    maxima = load[starts + np.arange(WINDOW_S)].reshape(len(starts), -1, STEP_S).max(axis=2)
    ahead = load[starts + WINDOW_S + np.arange(AHEAD_S)].max(axis=1, keepdims=True)
    scale = np.maximum(maxima.mean(axis=1, keepdims=True), 1.0)
    made = (torch.tensor(each, dtype=torch.float32) for each in ((maxima / scale)[..., np.newaxis], ahead / scale))
    first, second = made
    return first, second


def loss_of(predicted: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Return the symmetric mean absolute error, as a share; a load below a tenth of its mean counts as a tenth."""
    return (2 * (predicted - actual).abs() / (predicted.abs() + actual).clamp(min=2 * SMALLEST)).mean()


def write(model: Lstm, path: Path) -> None:
    """Write the model for onnxruntime, windows one at a time."""
    with replacing(path) as temporary:
        torch.onnx.export(
            model.eval(),
            (torch.ones(1, WINDOW_S // STEP_S, 1),),
            temporary,
            input_names=["maxima"],
            output_names=["ahead"],
            dynamo=False,
        )


if __name__ == "__main__":
    run(app)
