"""Random streams: every draw is a function of (seed, stream, entity, count), whatever order events come in.

So a source of randomness that is switched on leaves all others as they were, and so does a run cut into pieces. Bits
come from the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
2014), applied to a key of seed, stream and entity and again to key + count · golden gamma, which is that
generator's own sequence from the key on; normal variates by inversion, so that one draw takes one count.

>>> uniform(1, SERVICE, 0, 0) == uniform(1, SERVICE, 0, 0) != uniform(1, SERVICE, 1, 0)
True
"""

from math import log, sqrt

import numpy as np

from simulator.compilation import compiled, compiled_apart

SERVICE = 1  # stream of service times; entities are servers, counts the services that they have begun

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
STREAMS = np.uint64(0xD1B54A32D192ED03)
ENTITIES = np.uint64(0x8CB92BA72F3D8DD7)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)


@compiled
def mixed(z: np.uint64) -> np.uint64:
    """Return SplitMix64's finaliser of 64 bits."""
    z = (z ^ (z >> np.uint64(30))) * FIRST
    z = (z ^ (z >> np.uint64(27))) * SECOND
    return np.uint64(z ^ (z >> np.uint64(31)))


@compiled_apart
def uniform(seed: int, stream: int, entity: int, count: int) -> float:
    """Return a draw from (0, 1), the middle of one of 2^52 equal parts."""
    key = mixed(np.uint64(seed) * GOLDEN + np.uint64(stream) * STREAMS + np.uint64(entity) * ENTITIES)
    bits = mixed(key + np.uint64(count) * GOLDEN)
    return float((np.float64(bits >> np.uint64(12)) + 0.5) * 2.0**-52)


@compiled
def normal(seed: int, stream: int, entity: int, count: int) -> float:
    """Return a draw from the standard normal distribution."""
    return inverse_normal(uniform(seed, stream, entity, count))


@compiled_apart
def inverse_normal(p: float) -> float:
    """Return the standard normal quantile of p (Wichura, "Algorithm AS 241", PPND16, Applied Statistics 37, 1988).

    The standard library's `statistics.NormalDist.inv_cdf` is the same algorithm; compiled code cannot call it.
    """
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        above = horner(
            r,
            2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
            1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0,
        )  # fmt: skip
        below = horner(
            r,
            5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
            5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0,
        )  # fmt: skip
        return q * above / below
    r = sqrt(-log(p if q < 0 else 1.0 - p))
    if r <= 5.0:
        r -= 1.6
        above = horner(
            r,
            7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
            3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0,
        )  # fmt: skip
        below = horner(
            r,
            1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
            6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0,
        )  # fmt: skip
    else:
        r -= 5.0
        above = horner(
            r,
            2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
            2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0,
        )  # fmt: skip
        below = horner(
            r,
            2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
            1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0,
        )  # fmt: skip
    return -above / below if q < 0 else above / below


@compiled
def horner(x: float, a: float, b: float, c: float, d: float, e: float, f: float, g: float, h: float) -> float:
    """Return a·x⁷ + b·x⁶ + ... + h."""
    return ((((((a * x + b) * x + c) * x + d) * x + e) * x + f) * x + g) * x + h
