"""The predictor that IPA was published with (JSys 2024, section 4.4): an LSTM of 25 units over the window's maxima.

`scripts/train_lstm.py` trained the one that lies here, on 14 days of a tweet stream's counts per second, and says how.
onnxruntime runs it; whoever wants one of their own load trains it with that script.
"""

from functools import cache
from pathlib import Path

import numpy as np

from planner.model import InputError
from simulator.adaptation.predictors import STEP_S, WINDOW_S, Counts, Predictor, from_window

SHIPPED = Path(__file__).with_name("lstm.onnx")


@cache
def trained_lstm(path: Path = SHIPPED) -> Predictor:
    """Return a trained predictor; raises InputError for a file that is none.

    The file takes ``[1, 12, 1]`` maxima over their mean, and gives ``[1, 1]`` the largest count ahead over it.

    >>> 45 < trained_lstm()(np.full(300, 50.0)) < 55
    True
    """
    import onnxruntime  # heavy

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(
            f"{path}: is no ONNX file of a predictor ({error}); make one with scripts/train_lstm.py"
        ) from None
    takes = [(each.type, each.shape) for each in session.get_inputs()]
    expected = [("tensor(float)", [1, WINDOW_S // STEP_S, 1])]
    if takes != expected:
        raise InputError(f"{path}: a predictor takes {expected}, this file takes {takes}; use scripts/train_lstm.py")
    (name,) = (each.name for each in session.get_inputs())

    def rule(maxima: Counts) -> float:
        scale = max(float(maxima.mean()), 1.0)
        (ahead,) = session.run(None, {name: (maxima / scale).astype(np.float32).reshape(1, -1, 1)})
        return max(0.0, scale * float(ahead[0, 0]))

    return from_window(rule)
