"""Build small models of kinds that no public wheel ships: transformers, quantised and recurrent ones.

Layers are those that exporters and onnxruntime's quantisation tools write; weights are random, of a fixed seed, so that
activations neither vanish nor grow. They lie in out/models/built/ afterwards, where check_models.py looks for them.
"""

import argparse
import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[1]
FLOAT, HALF, INT64, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL


def main() -> None:
    """Build all models, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "models" / "built", help="folder for the files")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(MODELS):
        parser.error(f"no model is called {', '.join(sorted(unknown))}; expected names of {', '.join(MODELS)}")
    for name in arguments.names or MODELS:
        build(name, arguments.out)


def build(name: str, folder: Path) -> Path:
    """Write a model into a folder, and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    onnx.save(MODELS[name](), path)
    return path


class Draft:
    """A graph in the making: calling it with an operator and its inputs adds a node and returns its output's name.

    Inputs that are arrays become initializers. Bodies need a ``prefix``, as names are the whole model's.
    """

    def __init__(self, seed: int = 0, kind: int = FLOAT, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)
        self.kind = np.dtype(helper.tensor_dtype_to_np_dtype(kind))

    def __call__(self, operator: str, *inputs: Any, outputs: int | list[str] = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of names."""
        read = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        stem = f"{self.prefix}{operator}_{len(self.nodes)}"
        made = [f"{stem}.{number}" for number in range(outputs)] if isinstance(outputs, int) else outputs
        self.nodes.append(helper.make_node(operator, read, made, name=stem, **attributes))
        return made[0] if len(made) == 1 else made

    def constant(self, value: Any) -> str:
        """Return the name of a new initializer; Python's numbers become 64-bit integers or the model's floats."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(self.kind)
        self.weights.append(numpy_helper.from_array(array, f"{self.prefix}weight_{len(self.weights)}"))
        return self.weights[-1].name

    def matrix(self, *shape: int) -> np.ndarray:
        """Return weights of a variance that keeps that of what they are multiplied with."""
        return self.random.standard_normal(shape) / np.sqrt(shape[-2] if len(shape) == 2 else np.prod(shape[1:]))

    def vector(self, size: int, middle: float = 0.0) -> np.ndarray:
        """Return biases, or factors around ``middle``."""
        return middle + 0.1 * self.random.standard_normal(size)

    def linear(self, x: str, before: int, after: int) -> str:
        """Add a product with weights, and biases."""
        return str(self("Add", self.vector(after), self("MatMul", x, self.matrix(before, after))))

    def body(self, name: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> onnx.GraphProto:
        """Return the graph; inputs and outputs are types and shapes by name."""

        def declared(values: dict[str, Any]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(key, kind, shape) for key, (kind, shape) in values.items()]

        return helper.make_graph(self.nodes, name, declared(inputs), declared(outputs), self.weights)

    def model(self, name: str, inputs: dict[str, Any], outputs: dict[str, Any], opset: int = 17) -> onnx.ModelProto:
        """Return the whole as a model, checked."""
        made = helper.make_model(
            self.body(name, inputs, outputs),
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=10,
            producer_name="poolpipe",
        )
        onnx.checker.check_model(made)
        return made


WIDTH, HEADS, WORDS, LAYERS = 64, 4, 200, 2
HEAD = WIDTH // HEADS


def bert(kind: int = FLOAT) -> onnx.ModelProto:
    """Build an encoder as PyTorch's exporter writes it: batch and length open, targets of Reshape made from Shape."""
    net = Draft(1, kind)
    sizes = net("Shape", "ids")
    batch = net("Unsqueeze", net("Gather", sizes, 0), [0])
    length = net("Unsqueeze", net("Gather", sizes, 1), [0])
    words = net("Gather", net.random.standard_normal((WORDS, WIDTH)), "ids")
    places = net("Slice", net.random.standard_normal((1, 128, WIDTH)), [0], length, [1])
    x = normalised(net, net("Add", words, places))
    wide = net("Unsqueeze", "mask", [1, 2])
    shown = net("Expand", net("Cast", wide, to=kind), net("Concat", batch, [1], length, length, axis=0))
    bias = net("Mul", net("Sub", 1.0, shown), -10000.0)

    def heads_of(value: str) -> str:
        split = net("Reshape", value, net("Concat", batch, length, [HEADS], [HEAD], axis=0))
        return str(net("Transpose", split, perm=[0, 2, 1, 3]))

    for _ in range(LAYERS):
        q, k, v = (heads_of(net.linear(x, WIDTH, WIDTH)) for _ in range(3))
        scores = net("Div", net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2])), float(np.sqrt(HEAD)))
        weights = net("Softmax", net("Add", scores, bias), axis=-1)
        together = net("Transpose", net("MatMul", weights, v), perm=[0, 2, 1, 3])
        flat = net("Reshape", together, net("Concat", batch, length, [WIDTH], axis=0))
        x = normalised(net, net("Add", net.linear(flat, WIDTH, WIDTH), x))
        x = normalised(net, net("Add", feed_forward(net, x), x))
    first = net("Gather", x, 0, axis=1)
    net("Tanh", net.linear(first, WIDTH, WIDTH), outputs=["pooled"])
    net("Identity", x, outputs=["hidden"])
    return net.model(
        "bert",
        {"ids": (INT64, ["batch", "seq"]), "mask": (INT64, ["batch", "seq"])},
        {"hidden": (kind, ["batch", "seq", WIDTH]), "pooled": (kind, ["batch", WIDTH])},
    )


def normalised(net: Draft, x: str) -> str:
    return str(net("LayerNormalization", x, net.vector(WIDTH, 1.0), net.vector(WIDTH), axis=-1))


def feed_forward(net: Draft, x: str) -> str:
    """Add two products with GELU between, as it was exported before ONNX had it."""
    wide = net.linear(x, WIDTH, 4 * WIDTH)
    bent = net("Mul", net("Mul", wide, net("Add", net("Erf", net("Div", wide, float(np.sqrt(2)))), 1.0)), 0.5)
    return net.linear(bent, 4 * WIDTH, WIDTH)


def vit() -> onnx.ModelProto:
    """Build a vision transformer exported at batch 1: heads and class token in constants, sequence first inside."""
    net, side, patch = Draft(2), 32, 8
    count = (side // patch) ** 2
    tokens = net("Conv", "image", net.matrix(WIDTH, 3, patch, patch), kernel_shape=[patch] * 2, strides=[patch] * 2)
    rows = net("Transpose", net("Reshape", tokens, [1, WIDTH, count]), perm=[0, 2, 1])
    x = net("Concat", net.random.standard_normal((1, 1, WIDTH)), rows, axis=1)
    x = net("Add", x, net.random.standard_normal((1, count + 1, WIDTH)))
    for _ in range(LAYERS):
        turned = net("Transpose", normalised(net, x), perm=[1, 0, 2])
        q, k, v = (net("Reshape", net.linear(turned, WIDTH, WIDTH), [count + 1, HEADS, HEAD]) for _ in range(3))
        q = net("Mul", net("Transpose", q, perm=[1, 0, 2]), float(HEAD**-0.5))
        weights = net("Softmax", net("MatMul", q, net("Transpose", k, perm=[1, 2, 0])), axis=-1)
        attended = net("Transpose", net("MatMul", weights, net("Transpose", v, perm=[1, 0, 2])), perm=[1, 0, 2])
        back = net("Transpose", net("Reshape", attended, [count + 1, 1, WIDTH]), perm=[1, 0, 2])
        x = net("Add", x, net.linear(back, WIDTH, WIDTH))
        x = net("Add", x, feed_forward(net, normalised(net, x)))
    net("Gemm", net("Gather", x, 0, axis=1), net.matrix(WIDTH, 10), net.vector(10), outputs=["logits"])
    return net.model("vit", {"image": (FLOAT, [1, 3, side, side])}, {"logits": (FLOAT, [1, 10])}, opset=17)


def decoder() -> onnx.ModelProto:
    """Build a step of a decoder with a cache, in operators of opset 23: two heads of keys for four of queries."""
    net, kept = Draft(3), HEADS // 2
    x = net("Gather", net.random.standard_normal((WORDS, WIDTH)), "ids")
    outputs: dict[str, Any] = {"logits": (FLOAT, ["batch", 1, WORDS])}
    inputs: dict[str, Any] = {"ids": (INT64, ["batch", 1]), "position": (INT64, ["batch", 1])}
    angles = np.outer(np.arange(64), 100.0 ** -np.linspace(0, 1, HEAD // 2))
    for layer in range(LAYERS):
        normal = net("RMSNormalization", x, net.vector(WIDTH, 1.0), axis=-1)
        q, k, v = (net("MatMul", normal, net.matrix(WIDTH, HEAD * heads)) for heads in (HEADS, kept, kept))
        q, k = (
            net("RotaryEmbedding", each, np.cos(angles), np.sin(angles), "position", num_heads=heads)
            for each, heads in ((q, HEADS), (k, kept))
        )
        names = [f"{side}_{which}{layer}" for side in ("past", "present") for which in ("k", "v")]
        attended, *_ = net(
            "Attention", q, k, v, "", *names[:2], q_num_heads=HEADS, kv_num_heads=kept,
            outputs=[f"attended{layer}", *names[2:]],
        )  # fmt: skip
        inputs |= dict.fromkeys(names[:2], (FLOAT, ["batch", kept, "past", HEAD]))
        outputs |= dict.fromkeys(names[2:], (FLOAT, ["batch", kept, "past+1", HEAD]))
        x = net("Add", x, net("MatMul", attended, net.matrix(WIDTH, WIDTH)))
        normal = net("RMSNormalization", x, net.vector(WIDTH, 1.0), axis=-1)
        gate = net("MatMul", normal, net.matrix(WIDTH, 2 * WIDTH))
        gated = net("Mul", net("Mul", gate, net("Sigmoid", gate)), net("MatMul", normal, net.matrix(WIDTH, 2 * WIDTH)))
        x = net("Add", x, net("MatMul", gated, net.matrix(2 * WIDTH, WIDTH)))
    net("MatMul", x, net.matrix(WIDTH, WORDS), outputs=["logits"])
    return net.model("decoder", inputs, outputs, opset=23)


def convolutions() -> onnx.ModelProto:
    """Build a small residual network; it is what the quantised ones are made of."""
    net = Draft(4)
    x = net("Relu", net("Conv", "image", net.matrix(16, 3, 3, 3), net.vector(16), pads=[1] * 4, strides=[2, 2]))
    for groups in (1, 16, 4):
        inner = net(
            "Relu", net("Conv", x, net.matrix(16, 16 // groups, 3, 3), net.vector(16), pads=[1] * 4, group=groups)
        )
        x = net("Relu", net("Add", x, net("Conv", inner, net.matrix(16, 16, 1, 1), net.vector(16))))
    pooled = net("Flatten", net("GlobalAveragePool", x))
    net("Gemm", pooled, net.matrix(16, 10), net.vector(10), outputs=["logits"])
    return net.model("cnn", {"image": (FLOAT, ["batch", 3, 32, 32])}, {"logits": (FLOAT, ["batch", 10])})


def quantised(make: Callable[[], onnx.ModelProto], convert: Callable[[str, str], None]) -> onnx.ModelProto:
    """Return a model that one of onnxruntime's tools, which work on files and talk a lot, makes of another."""
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder, contextlib.redirect_stdout(io.StringIO()):
        source, target = (str(Path(folder) / name) for name in ("float.onnx", "quantised.onnx"))
        onnx.save(make(), source)
        logging.disable(logging.WARNING)
        try:
            convert(source, target)
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(target)


def dynamic(source: str, target: str) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, target)


def static(form: str) -> Callable[[str, str], None]:
    """Return a tool that calibrates on random images."""

    def convert(source: str, target: str) -> None:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

        class Images(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                random = np.random.default_rng(0)
                self.left: Iterator[Any] = iter(
                    [{"image": random.standard_normal((2, 3, 32, 32)).astype(np.float32)} for _ in range(4)]
                )

            def get_next(self) -> Any:
                return next(self.left, None)

        quantize_static(source, target, Images(), quant_format=QuantFormat[form], per_channel=True)

    return convert


def four_bits(source: str, target: str) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    tool = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=True)
    tool.process()
    tool.model.save_model_to_file(target)


def tagger() -> onnx.ModelProto:
    """Build a tagger of words: bidirectional LSTMs in both layers, sequence first inside, batch pinned to 1."""
    net, length, hidden = Draft(5), 12, 24
    x = net("Transpose", net("Gather", net.random.standard_normal((WORDS, 32)), "words"), perm=[1, 0, 2])
    for before in (32, 2 * hidden):
        weights = [net.random.standard_normal((2, 4 * hidden, size)) * size**-0.5 for size in (before, hidden)]
        states = np.zeros((2, 1, hidden), np.float32)
        made, *_ = net(
            "LSTM", x, *weights, net.random.standard_normal((2, 8 * hidden)) * 0.1, "", states, states,
            direction="bidirectional", hidden_size=hidden, outputs=3,
        )  # fmt: skip
        x = net("Reshape", net("Transpose", made, perm=[0, 2, 1, 3]), [length, 1, 2 * hidden])
    scores = net.linear(net("Transpose", x, perm=[1, 0, 2]), 2 * hidden, 9)
    net("ArgMax", scores, axis=2, keepdims=0, outputs=["tags"])
    net("Identity", scores, outputs=["scores"])
    return net.model(
        "tagger", {"words": (INT64, [1, length])}, {"tags": (INT64, [1, length]), "scores": (FLOAT, [1, length, 9])}
    )


def stream() -> onnx.ModelProto:
    """Build a detector in sounds that carries the state of a GRU from call to call, [1, batch, hidden]."""
    net, hidden = Draft(6), 32
    frames = net("Conv", net("Unsqueeze", "sound", [1]), net.matrix(16, 1, 40), strides=[20], kernel_shape=[40])
    steps = net("Transpose", net("Relu", frames), perm=[2, 0, 1])
    weights = [net.random.standard_normal((1, 3 * hidden, size)) * size**-0.5 for size in (16, hidden)]
    made, *_ = net(
        "GRU", steps, *weights, net.random.standard_normal((1, 6 * hidden)) * 0.1, "", "state",
        hidden_size=hidden, outputs=["steps", "next"],
    )  # fmt: skip
    last = net("Squeeze", net("Gather", made, -1, axis=0), [0])
    net("Sigmoid", net.linear(last, hidden, 1), outputs=["found"])
    state = (FLOAT, [1, "batch", hidden])
    return net.model(
        "stream",
        {"sound": (FLOAT, ["batch", "samples"]), "state": state},
        {"found": (FLOAT, ["batch", 1]), "next": state},
    )


def writer() -> onnx.ModelProto:
    """Build a decoder that writes six words in a Loop, each the likeliest after those before: a cell of a plain RNN."""
    net, cell, hidden, count = Draft(7), Draft(8, prefix="cell_"), 32, 6
    word = cell("Gather", cell.random.standard_normal((WORDS, hidden)), "word")
    mixed = cell("Add", cell.linear("state", hidden, hidden), cell.linear(word, hidden, hidden))
    cell("Tanh", mixed, outputs=["state_next"])
    scores = cell.linear("state_next", hidden, WORDS)
    cell("ArgMax", scores, axis=1, keepdims=0, outputs=["word_next"])
    cell("Identity", scores, outputs=["written"])
    cell("Identity", "go", outputs=["go_next"])
    states, words = (FLOAT, ["batch", hidden]), (INT64, ["batch"])
    body = cell.body(
        "cell",
        {"trip": (INT64, []), "go": (BOOL, []), "word": words, "state": states},
        {"go_next": (BOOL, []), "word_next": words, "state_next": states, "written": (FLOAT, ["batch", WORDS])},
    )
    start = net("Tanh", net.linear("image", 48, hidden))
    first = net("ArgMax", net.linear(start, hidden, WORDS), axis=1, keepdims=0)
    *_, written = net("Loop", np.array(count), np.array(True), first, start, body=body, outputs=3)
    net("Softmax", net("Transpose", written, perm=[1, 0, 2]), axis=-1, outputs=["text"])
    return net.model("writer", {"image": (FLOAT, ["batch", 48])}, {"text": (FLOAT, ["batch", count, WORDS])})


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "bert": bert,
    "bert_half": lambda: bert(HALF),
    "bert_dynamic_int8": lambda: quantised(bert, dynamic),
    "bert_int4": lambda: quantised(bert, four_bits),
    "vit": vit,
    "decoder": decoder,
    "cnn_qdq": lambda: quantised(convolutions, static("QDQ")),
    "cnn_qoperator": lambda: quantised(convolutions, static("QOperator")),
    "tagger": tagger,
    "stream": stream,
    "writer": writer,
}


if __name__ == "__main__":
    main()
