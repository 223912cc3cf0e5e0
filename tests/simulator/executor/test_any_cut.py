"""Whatever crosses a cut travels: shapes, indices, masks, states with the batch in the middle."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from crossing import MODELS, execute_cuts, model_of

from planner.model import InputError
from planner.profiling import prepare_model
from planner.profiling.samples import draw_samples
from simulator.executor.stages import split_model, write_warm_up


@pytest.mark.parametrize("kind", MODELS)
def test_stages_of_every_cut_run_on_what_the_ones_before_them_make(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    graph = prepare_model(model, "m").graph
    samples = draw_samples(graph, 4, 0)
    for cut in range(1, len(graph.layers)):
        models = split_model(graph, [0, cut], tmp_path / str(cut))
        write_warm_up(models, graph, samples, (1, 3))
        for stage in models.stages:
            with np.load(stage.warm_up_file(3)) as arrays:
                assert len(arrays.files) == len(stage.inputs)


CUTS = {
    "the target of a late reshape": [1, 4],
    "a scalar and a mask": [2, 5],
    "the batch in the middle": [1, 2],
    "an input and an answer with the batch in the middle": [1],
    "an answer that depends on no request": [1],
    "an input read again by the last layer": [3],
}


@pytest.mark.parametrize("kind", CUTS)
def test_answers_are_the_originals_whatever_crosses_the_cuts(kind: str) -> None:
    model = model_of(kind)
    found = execute_cuts(model, prepare_model(model, "m").graph, CUTS[kind], batch=3)
    assert found.records.finished.all()
    assert found.verdict is not None
    assert (found.verdict.compared, found.verdict.wrong) == (24, 0)
    assert not found.journal.incidents


def test_what_is_no_number_is_refused_before_a_worker_starts(tmp_path: Path) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y)'
        " { h = Cast<to = 16>(x) y = Cast<to = 1>(h) }"
    )
    graph = prepare_model(model, "m").graph
    with pytest.raises(InputError, match="tensor 'h' cannot travel: it holds bfloat16"):
        split_model(graph, [0, 1], tmp_path)
