"""fp16 where it is fast, fp32 where digits count."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='onnx is not here; ./run test brings it')

from coam_ros.inference import default_model_directory  # noqa: E402
from coam_ros.inference.half_precision import to_half  # noqa: E402
from coam_ros.inference.manifest import Manifest  # noqa: E402
from onnx import helper, numpy_helper, TensorProto  # noqa: E402
import onnxruntime  # noqa: E402

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
COMPARING = {'Softmax', 'TopK', 'ArgMax', 'ReduceMax'}
NORMALISING = {'InstanceNormalization', 'LayerNormalization', 'ReduceL2', 'ReduceMean'}


def make_model(nodes, inputs, outputs, constants):
    graph = helper.make_graph(
        [helper.make_node(*node[:-1], **node[-1]) for node in nodes],
        'test',
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [
            numpy_helper.from_array(np.asarray(v, np.float32), n)
            for n, v in dict(constants).items()
        ],
    )
    opset = [helper.make_opsetid('', 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def types_of(model):
    """Return the element type of every value by name."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {value.name: value.data_type for value in graph.initializer}


def node_making(model, name):
    return next(node for node in model.graph.node if name in node.output)


def run(model, **inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {name: np.asarray(x, np.float32) for name, x in inputs.items()})


def test_attention_keeps_its_logits_in_fp32_and_applies_them_in_fp16():
    model = make_model(
        [
            ('MatMul', ['x', 'wq'], ['q'], {}),
            ('Transpose', ['x'], ['k'], {'perm': [0, 2, 1]}),
            ('MatMul', ['q', 'k'], ['logits'], {}),
            ('Mul', ['logits', 'scale'], ['scaled'], {}),
            ('Softmax', ['scaled'], ['weights'], {'axis': -1}),
            ('MatMul', ['weights', 'x'], ['y'], {}),
        ],
        {'x': [1, 6, 4]},
        {'y': [1, 6, 4]},
        {'wq': 300 * np.eye(4), 'scale': 0.001},
    )
    # The logits reach 300 * 4 * 9^2 = 97,200, which fp16 does not hold.
    x = np.random.default_rng(0).uniform(-9, 9, (1, 6, 4))
    wanted = run(model, x=x)[0]
    half = to_half(model)
    types = types_of(half)
    assert (types['q'], types['logits'], types['scaled'], types['weights']) == (
        HALF, FLOAT, FLOAT, FLOAT,
    )  # fmt: skip
    assert types['y'] == FLOAT
    assert types[node_making(half, 'y').input[0]] == HALF
    np.testing.assert_allclose(run(half, x=x)[0], wanted, atol=9 * 2**-9)


@pytest.mark.parametrize('comparing', sorted(COMPARING))
def test_where_a_gpu_has_no_fp32_products_all_of_them_are_fp16(comparing):
    inputs = ['q', 'k'] if comparing == 'TopK' else ['q']
    model = make_model(
        [
            ('Cast', ['two'], ['k'], {'to': TensorProto.INT64}),
            ('MatMul', ['x', 'w'], ['q'], {}),
            (comparing, inputs, ['found', 'indices'][: len(inputs)], {}),
            ('Cast', ['found'], ['y'], {'to': FLOAT}),
        ],
        {'x': [6, 4]},
        {'y': None},
        {'w': np.eye(4), 'two': [2]},
    )
    assert types_of(to_half(model))['q'] == FLOAT
    assert types_of(to_half(model, has_float_products=False))['q'] == HALF


def test_coordinates_stay_exact_beside_convolutions():
    model = make_model(
        [
            ('Conv', ['image', 'kernel'], ['a'], {}),
            ('Relu', ['a'], ['b'], {}),
            ('Add', ['b', 'b'], ['c'], {}),
            ('Mul', ['points', 'scale'], ['d'], {}),
            ('Add', ['d', 'offset'], ['moved'], {}),
            ('Add', ['b', 'moved'], ['refined'], {}),
        ],
        {'image': [1, 1, 2, 2], 'points': [1]},
        {'c': [1, 1, 2, 2], 'moved': [1], 'refined': [1, 1, 2, 2]},
        {'kernel': np.ones((1, 1, 1, 1)), 'scale': 0.5, 'offset': 0.25},
    )
    half = to_half(model)
    types = types_of(half)
    assert (types['a'], types['b'], types['d'], types['moved']) == (HALF, HALF, FLOAT, FLOAT)
    assert {types[name] for name in node_making(half, 'refined').input} == {FLOAT}
    # 1279 * 0.5 + 0.25 has no neighbour in fp16 that is nearer than 0.25.
    image = np.full((1, 1, 2, 2), 1.5)
    doubled, moved, _ = run(half, image=image, points=[1279.0])
    assert moved.tolist() == [639.75]
    np.testing.assert_array_equal(doubled, 2 * image)


def test_a_value_that_came_as_fp16_is_not_cast_there_and_back():
    model = make_model(
        [
            ('Cast', ['h'], ['x'], {'to': FLOAT}),
            ('Conv', ['x', 'kernel'], ['y'], {}),
        ],
        {'h': [1, 1, 2, 2]},
        {'y': [1, 1, 2, 2]},
        {'kernel': np.ones((1, 1, 1, 1))},
    )
    model.graph.input[0].type.tensor_type.elem_type = HALF
    half = to_half(model)
    assert next(node for node in half.graph.node if node.op_type == 'Conv').input[0] == 'h'


@pytest.mark.parametrize('file', ['encoder', 'pair_matcher'])
def test_of_the_model_every_convolution_is_fp16_and_every_comparison_fp32(file):
    directory = default_model_directory()
    path = directory / getattr(Manifest.load(directory), file).file
    model = onnx.load(path)
    signature = [*model.graph.input, *model.graph.output]
    half = to_half(model)
    assert [*half.graph.input, *half.graph.output] == signature
    types = types_of(half)
    kinds = set()
    for node in half.graph.node:
        kinds.add(node.op_type)
        if node.op_type == 'Conv':
            assert {types[name] for name in (*node.input, *node.output)} == {HALF}, node.name
        if node.op_type in COMPARING | NORMALISING:
            assert HALF not in {types.get(name) for name in (*node.input, *node.output)}, node.name
    assert 'Conv' in kinds
    assert kinds & COMPARING
