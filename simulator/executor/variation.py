"""How service times vary around their means, as a run of the same plan showed it.

No batch takes exactly the mean of its stage, and where batches wait for each other it is the longer ones that matter:
a prediction from means alone is too early in the middle of the latencies already. So a prediction draws from what a
rehearsal (or the warm-up of the run) measured: each batch's time on its slice over that of its stage, planned times
telling batch sizes apart. All stages draw from one distribution, and one batch from the other independently; what
makes stages slow together, or for seconds on end, is not in it.
"""

import numpy as np

from simulator.executor.execution import Execution
from simulator.executor.hand_over import LEAST_BATCHES, occupied

FACTORS = 200  # evenly spaced quantiles that stand for a distribution


def service_factors(execution: Execution, until_us: int | None = None) -> tuple[float, ...]:
    """Return service times over the mean of their stage, as `FACTORS` evenly spaced quantiles of mean 1.

    They are of batches answered before ``until_us`` (default: the end of the warm-up); none where a pipeline had fewer
    than `LEAST_BATCHES` of them. `simulator.engine.World` takes them as ``factors``.
    """
    until_us = execution.window_us[0] if until_us is None else until_us
    system, journal = execution.system, execution.journal
    answered = [batch for batch in journal.batches if (batch.answered_us or until_us) < until_us]
    found = []
    for pipeline in range(len(system.stages)):
        own = [batch for batch in answered if batch.pipeline == pipeline]
        if len(own) < LEAST_BATCHES:
            return ()
        for stage in range(int(system.stages[pipeline])):
            planned_us = system.latency_us[pipeline, stage]
            over_planned = np.array([us / int(planned_us[visit.size]) for visit, us in occupied(own, stage)])
            found.append(over_planned / over_planned.mean())
    middles = (np.arange(FACTORS) + 0.5) / FACTORS
    quantiles = np.quantile(np.concatenate(found), middles, method="hazen")
    return tuple((quantiles / quantiles.mean()).tolist())
