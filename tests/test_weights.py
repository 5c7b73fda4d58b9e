"""Parameters' values: what Caffe copies, ignores and refuses when it loads weights; fillers; sharing."""

from __future__ import annotations

import re

import numpy as np
import pytest
from google.protobuf import text_format

import inspector
from caffe_proto import caffe_pb2
from inspector.caffemodel import StoredBlob, StoredLayer, StoredModel, open_weights, write_model
from inspector.errors import InspectorError
from inspector.weights import Weights, match

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 7 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 5 kernel_h: 4 kernel_w: 2
                            weight_filler { type: "gaussian" std: 0.1 } bias_filler { value: 0.25 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
"""

SHARED = """
layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 6 } } }
layer { name: "b" type: "Input" top: "b" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "one" type: "InnerProduct" bottom: "a" top: "one" param { name: "w" }
        inner_product_param { num_output: 3 bias_term: false weight_filler { type: "uniform" min: 1 max: 2 } } }
layer { name: "two" type: "InnerProduct" bottom: "b" top: "two" param { name: "w" share_mode: PERMISSIVE } param { lr_mult: 1 }
        inner_product_param { num_output: 6 } }
"""

SHAPES = {"conv": [(5, 3, 4, 2), (5,)], "ip": [(4, 5 * 5 * 6), (4,)]}


def graph(text: str):
    net = inspector.loads(text)
    net.check()
    return net.graph


def params(net_graph):
    return {(param.node.name, param.index): param for param in net_graph.params()}


def stored(layers: dict[str, list], generation: str = "V2", **facts) -> StoredModel:
    """A file's table of contents, without a file."""
    return StoredModel(
        "made.caffemodel",
        None,
        [
            StoredLayer(
                name,
                "",
                generation,
                [StoredBlob("", i, shape, values=int(np.prod(shape)), **facts) for i, shape in enumerate(shapes)],
            )
            for name, shapes in layers.items()
        ],
    )


@pytest.fixture
def written(tmp_path):
    """Write arrays by layer name to a file and open it."""

    def write(arrays, suffix=""):
        proto = caffe_pb2.NetParameter()
        for name in arrays:
            proto.layer.add(name=name)
        path = tmp_path / f"written.caffemodel{suffix}"
        write_model(path, proto, arrays)
        return open_weights(path)

    return write


def random_arrays(shapes=SHAPES, seed=3):
    rng = np.random.default_rng(seed)
    return {name: [rng.standard_normal(shape, np.float32) for shape in entry] for name, entry in shapes.items()}


# ---- matching


def test_layers_are_matched_by_name_in_the_files_order():
    found = match(graph(NET), stored({"ip": SHAPES["ip"], "label": [], "old": [(7,)], "relu": [], "data": []}))
    assert found.outcomes == [("ip", "copied"), ("label", "ignored"), ("old", "ignored"), ("relu", "copied"), ("data", "copied")]
    assert (found.copied, found.ignored) == (["ip", "relu", "data"], ["label", "old"])
    assert found.missing == ["conv"]
    assert found.mismatches == []
    assert [(param.node.name, param.index, blob.index) for param, blob in found.pairs] == [("ip", 0, 0), ("ip", 1, 1)]


def test_what_caffe_said_when_it_loaded_caffenet(reference):
    """The published log of a deploy net, for the file that its training net writes."""
    log = (reference / "logs/published/caffenet_deploy.rc-debug.log").read_text(errors="replace")
    said = re.findall(r"(Ignoring|Copying) source layer (\S+)", log)
    training = inspector.load("caffenet/train_val", phase="TRAIN")
    layers = {node.name: [param.shape for param in node.params] for node in training.graph.nodes}
    deploy = caffe_pb2.NetParameter()
    deploy.CopyFrom(inspector.load("caffenet").opened.proto)
    del deploy.layer[0]  # in those days a net had inputs, and no layer of that name
    deploy.input.append("data")
    deploy.input_dim.extend([10, 3, 227, 227])
    found = match(graph(text_format.MessageToString(deploy)), stored(layers))
    assert [({"ignored": "Ignoring", "copied": "Copying"}[outcome], name) for name, outcome in found.outcomes] == said
    assert (found.missing, found.mismatches) == ([], [])


def test_real_files_fit_their_nets(reference):
    fitting = 0
    for path in sorted((reference / "models").glob("*/weights.caffemodel*")):
        deploy = next(path.parent.glob("deploy*.prototxt"))
        net = inspector.load(deploy)
        found = match(net.graph, open_weights(path))
        assert found.mismatches == [], path
        assert found.missing == [], path
        oracle = path.parent / "caffe_oracle.npz"
        if net.error is None and oracle.exists():
            weights = Weights(net.graph, open_weights(path))
            with np.load(oracle, allow_pickle=False) as answers:
                assert sum(weights[param].size for param in net.graph.params()) == answers["param_count"]
            fitting += 1
    assert fitting > 8


def test_all_mismatches_are_listed_with_both_sides(written):
    wrong = {"conv": [(5, 3, 2, 4), (5,)], "ip": [(4, 150), (4, 1)]}
    found = match(graph(NET), stored(wrong))
    assert [(entry.code, entry.layer, entry.values) for entry in found.mismatches] == [
        ("weights-shape", "conv", {"index": 0, "net": (5, 3, 4, 2), "stored": (5, 3, 2, 4)}),
        ("weights-shape", "ip", {"index": 1, "net": (4,), "stored": (4, 1)}),
    ]
    assert [entry.where.line for entry in found.mismatches] == [3, 7]
    assert found.copied == []
    weights = Weights(graph(NET))
    with pytest.raises(InspectorError) as caught:
        weights.load(written(random_arrays(wrong)))
    assert caught.value.code == "weights-mismatch"
    for words in (
        "5 x 3 x 4 x 2 in the net and 5 x 3 x 2 x 4 in the file",
        "4 in the net and 4 x 1 in the file",
        "written.caffemodel",
    ):
        assert words in str(caught.value)


def test_nothing_is_loaded_where_something_does_not_fit(written):
    net_graph = graph(NET)
    weights = Weights(net_graph)
    with pytest.raises(InspectorError):
        weights.load(written(random_arrays({"conv": SHAPES["conv"], "ip": [(4, 151), (4,)]})))
    assert (weights[params(net_graph)["conv", 1]] == 0.25).all()


@pytest.mark.parametrize("blobs", [[], [(5, 3, 4, 2)], [(5, 3, 4, 2), (5,), (5,)]])
def test_number_of_blobs(blobs):
    found = match(graph(NET), stored({"conv": blobs}))
    assert [(entry.code, entry.values) for entry in found.mismatches] == [("weights-count", {"net": 2, "stored": len(blobs)})]
    assert match(graph(NET), stored({"relu": [(5,)]})).mismatches[0].values == {"net": 0, "stored": 1}


def test_fewer_values_than_the_shape():
    short = stored({"ip": SHAPES["ip"]})
    short.layers[0].blobs[0].values = 599
    found = match(graph(NET), short)
    assert [(entry.code, entry.values) for entry in found.mismatches] == [
        ("weights-values", {"index": 0, "net": 600, "stored": 599})
    ]


def test_legacy_shapes():
    old = {"conv": [(5, 3, 4, 2), (1, 1, 1, 5)], "ip": [(1, 1, 4, 150), (1, 1, 1, 4)]}
    assert match(graph(NET), stored(old, "V1", legacy=True)).mismatches == []
    assert len(match(graph(NET), stored(old, "V1")).mismatches) == 3  # the same sizes in `shape` are not the same to Caffe
    turned = {"ip": [(1, 1, 150, 4), (4, 1, 1, 1)]}
    assert len(match(graph(NET), stored(turned, "V1", legacy=True)).mismatches) == 2


def test_a_type_that_nobody_knows_cannot_be_compared():
    net = inspector.loads(NET + 'layer { name: "own" type: "Own" bottom: "ip" top: "own" }')
    found = match(net.graph, stored({**SHAPES, "own": [(3,)]}))
    assert found.outcomes[-1] == ("own", "unknown")
    assert (found.missing, found.mismatches) == ([], [])


# ---- values


def test_values_arrive(written):
    arrays = random_arrays()
    net_graph = graph(NET)
    weights = Weights(net_graph, written(arrays))
    for (name, index), param in params(net_graph).items():
        assert (weights[param] == arrays[name][index]).all()
        assert weights[param] is weights[param]
        assert weights[param].ctypes.data % 64 == 0
        weights[param][...] = 0  # writable, and not the file's
        assert not weights[param].any()


def test_legacy_values_take_the_nets_shape(tmp_path):
    wanted = random_arrays()["ip"]
    proto = caffe_pb2.NetParameter()
    layer = proto.layers.add(name="ip", type=caffe_pb2.V1LayerParameter.INNER_PRODUCT)
    layer.blobs.add(num=1, channels=1, height=4, width=150, data=wanted[0].ravel())
    layer.blobs.add(num=1, channels=1, height=1, width=4, data=wanted[1])
    path = tmp_path / "old.caffemodel"
    path.write_bytes(proto.SerializeToString())
    net_graph = graph(NET)
    weights = Weights(net_graph, open_weights(path))
    for index in (0, 1):
        assert np.array_equal(weights[params(net_graph)["ip", index]], wanted[index])


def test_several_files_follow_each_other(written):
    net_graph = graph(NET)
    weights = Weights(net_graph, written(random_arrays()))
    touched, untouched = params(net_graph)["ip", 0], params(net_graph)["ip", 1]
    array = weights[touched]
    later = random_arrays({"ip": SHAPES["ip"]}, seed=4)
    assert weights.load(written(later)).missing == ["conv"]
    assert weights[touched] is array  # whoever holds it sees the new values
    assert np.array_equal(array, later["ip"][0])
    assert np.array_equal(weights[untouched], later["ip"][1])
    assert np.array_equal(weights[params(net_graph)["conv", 1]], random_arrays()["conv"][1])


def test_fillers_where_no_file_says_anything():
    net_graph = graph(NET)
    here = params(net_graph)
    weights = Weights(net_graph, seed=5)
    assert (weights[here["conv", 1]] == 0.25).all()
    assert not weights[here["ip", 1]].any()  # no filler is zeros
    assert 0.05 < weights[here["conv", 0]].std() < 0.2
    assert {weights[param].dtype for param in net_graph.params()} == {np.dtype("float32")}


def test_fillers_do_not_depend_on_the_order_of_touching():
    net_graph = graph(NET)
    forwards, backwards, other = Weights(net_graph, seed=5), Weights(net_graph), Weights(net_graph, seed=6)
    backwards.seed(5)
    order = list(net_graph.params())
    for param in order:
        forwards[param]
    for param in reversed(order):
        assert np.array_equal(backwards[param], forwards[param])
    assert not np.array_equal(other[order[0]], forwards[order[0]])


def test_set():
    net_graph = graph(NET)
    weights = Weights(net_graph)
    bias = params(net_graph)["ip", 1]
    weights.set(bias, [1, 2, 3, 4])
    array = weights[bias]
    weights.set(bias, np.arange(4.0))
    assert array.tolist() == [0, 1, 2, 3]
    for wrong in (np.zeros((4, 1)), np.zeros(3), 0.5):
        with pytest.raises(InspectorError) as caught:
            weights.set(bias, wrong)
        assert caught.value.code == "weights-shape"


# ---- sharing


def test_shared_parameters_are_one_array():
    net_graph = graph(SHARED)
    here = params(net_graph)
    weights = Weights(net_graph)
    owner, sharer = weights[here["one", 0]], weights[here["two", 0]]
    assert (owner.shape, sharer.shape) == ((3, 6), (6, 3))
    assert np.shares_memory(owner, sharer)
    assert owner.min() >= 1  # by the owner's filler
    weights.set(here["two", 0], np.arange(18).reshape(6, 3))
    assert owner.ravel().tolist() == list(range(18))


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_the_last_layer_in_the_file_settles_a_shared_parameter(written, order):
    arrays = random_arrays({"one": [(3, 6)], "two": [(6, 3), (6,)]})
    net_graph = graph(SHARED)
    here = params(net_graph)
    weights = Weights(net_graph, written({name: arrays[name] for name in order}))
    assert np.array_equal(weights[here["one", 0]].ravel(), arrays[order[1]][0].ravel())
    assert np.array_equal(weights[here["two", 1]], arrays["two"][1])


def test_hdf5_leaves_out_what_another_layer_owns(written):
    arrays = random_arrays({"one": [(3, 6)], "two": [(6, 3), (6,)]})
    arrays["two"][0] = None
    net_graph = graph(SHARED)
    here = params(net_graph)
    weights = Weights(net_graph, written(arrays, ".h5"))
    assert np.array_equal(weights[here["two", 0]].ravel(), arrays["one"][0].ravel())
    assert np.array_equal(weights[here["two", 1]], arrays["two"][1])
    found = match(net_graph, written({"one": [], "two": arrays["two"]}, ".h5"))
    assert [(entry.code, entry.layer) for entry in found.mismatches] == [("weights-count", "one")]
    found = match(net_graph, written({"one": arrays["one"] * 2}, ".h5"))
    assert [(entry.code, entry.values) for entry in found.mismatches] == [("weights-count", {"net": 1, "stored": 2})]
    assert found.missing == ["two"]
    assert match(net_graph, stored({"one": [(3, 6)]})).missing == ["two"]


def test_by_layer_is_what_is_written(written):
    net_graph = graph(SHARED)
    weights = Weights(net_graph)
    everything, owned = weights.by_layer(), weights.by_layer(shared=False)
    assert [array.shape for array in everything["two"]] == [(6, 3), (6,)]
    assert [None if array is None else array.shape for array in owned["two"]] == [None, (6,)]
    for stored_again in (written(everything), written(owned, ".h5")):
        again = Weights(net_graph, stored_again, seed=99)
        for param in net_graph.params():
            assert np.array_equal(again[param], weights[param])


# ---- other input shapes


def test_moving_to_other_input_shapes(written):
    arrays = random_arrays({"conv": SHAPES["conv"]})
    text = NET[: NET.index('layer { name: "ip"')]
    small, large = graph(text), graph(text.replace("dim: 8 dim: 7", "dim: 18 dim: 17"))
    weights = Weights(small, written(arrays), seed=7)
    touched = weights[params(small)["conv", 0]]
    moved = weights.moved_to(large)
    assert moved[params(large)["conv", 0]] is touched
    assert np.array_equal(moved[params(large)["conv", 1]], arrays["conv"][1])
    fresh = Weights(small, seed=7)
    assert np.array_equal(fresh.moved_to(large)[params(large)["conv", 0]], fresh[params(small)["conv", 0]])


def test_moving_where_a_parameter_would_change():
    small, large = graph(NET), graph(NET.replace("dim: 8 dim: 7", "dim: 9 dim: 7"))
    weights = Weights(small)
    weights[params(small)["ip", 0]]
    with pytest.raises(InspectorError) as caught:
        weights.moved_to(large)
    assert "4 x 150 and would be 4 x 180" in str(caught.value)
