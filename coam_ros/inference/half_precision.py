"""fp16 for the heavy part of an ONNX network; what needs its digits stays fp32.

TensorRT builds strongly typed: it computes in the types that the graph says. Here they are said.
The converters at hand (onnxruntime.transformers, onnxconverter-common) turn every value between
two nodes into fp16, those between two fp32 nodes too: pixel coordinates would be good to half a
pixel. Here only the region around the convolutions and projections changes its type.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto

# Where the time goes. A MatMul counts unless its result is compared, see `_is_compared`.
_HEAVY = {'Conv', 'ConvTranspose', 'Gemm', 'MatMul'}
# fp16 when all they work on is: they combine or move values without losing more than one rounding.
_FOLLOWING = {
    'Add', 'AveragePool', 'BatchNormalization', 'Concat', 'Expand', 'LeakyRelu', 'MaxPool', 'Mul',
    'Pad', 'PRelu', 'Relu', 'Reshape', 'Resize', 'Slice', 'Split', 'Squeeze', 'Transpose',
    'Unsqueeze',
}  # fmt: skip
# Attention logits and similarities: fp16 would overflow the former and make ties of the latter.
_COMPARING = {'ArgMax', 'ReduceMax', 'Softmax', 'TopK'}
_ELEMENTWISE = {
    'Add', 'Clip', 'Div', 'Expand', 'Mul', 'Reshape', 'Squeeze', 'Sub', 'Transpose', 'Unsqueeze',
    'Where',
}  # fmt: skip
# Inputs whose type ONNX fixes.
_FIXED_INPUTS = {'Resize': {1, 2}}


def to_half(model: onnx.ModelProto, has_float_products: bool = True) -> onnx.ModelProto:
    """Return a network whose heavy part computes in fp16; inputs and outputs keep their types.

    Args:
        model: fp32 network of one graph, its nodes in order.
        has_float_products: keep matrix products whose result is compared in fp32; false where the
            GPU has no such products. Attention that divides its logits by the root of the
            channels does not overflow then, and few similarities become equal.

    Raises:
        onnx.checker.ValidationError: the result is not a valid network.
    """
    model = onnx.shape_inference.infer_shapes(model)
    conversion = _Conversion(model.graph, has_float_products)
    nodes = list(conversion.run())
    graph = model.graph
    for entries, wanted in (
        (graph.node, nodes),
        (graph.initializer, conversion.used_initializers(nodes)),
        (graph.value_info, []),
    ):
        del entries[:]
        entries.extend(wanted)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Conversion:
    """Walks a graph from its inputs to its outputs and tells which values are fp16."""

    def __init__(self, graph: onnx.GraphProto, has_float_products: bool) -> None:
        self._has_float_products = has_float_products
        self._nodes = list(graph.node)
        self._outputs = {value.name for value in graph.output}
        self._constants = {value.name: value for value in graph.initializer}
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*graph.input, *graph.output, *graph.value_info)
        }
        self._types |= {name: value.data_type for name, value in self._constants.items()}
        self._users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self._nodes:
            for name in node.input:
                self._users[name].append(node)
        # Values that became fp16; and value and type -> name of what has it in this type.
        self._half: set[str] = set()
        self._cast: dict[tuple[str, int], str] = {}

    def run(self) -> Iterator[onnx.NodeProto]:
        """Give the nodes with their new inputs, and casts before those that need them."""
        for node in self._nodes:
            is_half = self._is_half(node)
            wanted = TensorProto.FLOAT16 if is_half else TensorProto.FLOAT
            for slot, name in enumerate(node.input):
                if slot in _FIXED_INPUTS.get(node.op_type, ()):
                    continue
                if is_half or name in self._half:
                    yield from self._bring(node, slot, wanted)
            if not is_half:
                self._remember_cast(node)
                yield node
                continue
            casts = []
            for slot, name in enumerate(node.output):
                if name in self._outputs and self._types[name] == TensorProto.FLOAT:
                    node.output[slot] = f'{name}_half'
                    casts.append(_cast(node.output[slot], name, TensorProto.FLOAT))
                self._half.add(node.output[slot])
            yield node
            yield from casts

    def used_initializers(self, nodes: list[onnx.NodeProto]) -> list[onnx.TensorProto]:
        """List the constants that the new nodes read."""
        names = {name for node in nodes for name in node.input}
        return [value for name, value in self._constants.items() if name in names]

    def _is_half(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _HEAVY:
            is_kept = self._has_float_products and node.op_type == 'MatMul'
            return not (is_kept and self._is_compared(node))
        worked_on = [
            name
            for name in node.input
            if name not in self._constants and self._types.get(name) == TensorProto.FLOAT
        ]
        return (
            node.op_type in _FOLLOWING
            and bool(worked_on)
            and all(name in self._half for name in worked_on)
        )

    def _is_compared(self, node: onnx.NodeProto) -> bool:
        """Whether the result decides what is taken, be it softly."""
        return any(
            user.op_type in _COMPARING
            or (user.op_type in _ELEMENTWISE and self._is_compared(user))
            for name in node.output
            for user in self._users[name]
        )

    def _remember_cast(self, node: onnx.NodeProto) -> None:
        """What was cast from fp16 to fp32 needs no cast back."""
        if node.op_type == 'Cast' and self._types.get(node.input[0]) == TensorProto.FLOAT16:
            self._cast[node.output[0], TensorProto.FLOAT16] = node.input[0]

    def _bring(self, node: onnx.NodeProto, slot: int, wanted: int) -> Iterator[onnx.NodeProto]:
        """Make an input of a node have the wanted type."""
        name = node.input[slot]
        found = TensorProto.FLOAT16 if name in self._half else self._types.get(name)
        if found not in (TensorProto.FLOAT, TensorProto.FLOAT16) or found == wanted:
            return
        if (name, wanted) not in self._cast:
            new_name = f'{name}_as_{"half" if wanted == TensorProto.FLOAT16 else "float"}'
            self._cast[name, wanted] = new_name
            if name in self._constants:
                values = numpy_helper.to_array(self._constants[name]).astype(np.float16)
                self._constants[new_name] = numpy_helper.from_array(values, new_name)
            else:
                yield _cast(name, new_name, wanted)
        node.input[slot] = self._cast[name, wanted]


def _cast(source: str, target: str, element_type: int) -> onnx.NodeProto:
    return helper.make_node('Cast', [source], [target], f'{target}_cast', to=element_type)
