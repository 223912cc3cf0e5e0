"""ONNX models as layers, cuts and parts; what their layers cost on devices measured or estimated.

`read_graph` shows a model's layers and cuts, `extract_part` makes any run of layers a model, `free_batch` opens a
pinned batch. `measure_tables` times blocks on a device at hand, `estimate_tables` computes them for a device of
the catalogue.
"""

from planner.profiling.batching import free_batch
from planner.profiling.catalogue import CatalogueDevice, Coefficients, device_catalogue, find_device
from planner.profiling.joining import joined
from planner.profiling.layer_times import LayerTimes, measure_layers
from planner.profiling.onnx_graph import Layer, ModelGraph, read_graph
from planner.profiling.preparing import Prepared, prepare_model
from planner.profiling.profiler import DeviceAtHand, measure_tables
from planner.profiling.profiles import blank_profile, block_starts, with_tables
from planner.profiling.roofline import estimate_layers, estimate_tables
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.split import Part, extract_part, extract_parts, run_chain
from planner.profiling.timing import Effort
from planner.profiling.zoo import build_architecture, build_model, model_names

__all__ = [
    "CatalogueDevice",
    "Coefficients",
    "DeviceAtHand",
    "Effort",
    "Layer",
    "LayerTimes",
    "ModelGraph",
    "Part",
    "Prepared",
    "blank_profile",
    "block_starts",
    "build_architecture",
    "build_model",
    "device_catalogue",
    "estimate_layers",
    "estimate_tables",
    "extract_part",
    "extract_parts",
    "find_device",
    "free_batch",
    "joined",
    "measure_layers",
    "measure_tables",
    "model_names",
    "open_session",
    "prepare_model",
    "random_feeds",
    "read_graph",
    "run_chain",
    "run_model",
    "with_tables",
]
