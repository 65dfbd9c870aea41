"""Exported files compute what their networks compute, in programs that are not ours."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from exporting import TINY_INPUT, TinyNetwork, by_onnxruntime, by_openvino, relative_difference, trained
from ffconv.errors import InputError
from ffconv.interop.export import Check, ExportConfig, ExportReport, export
from ffconv.interop.export_input import NetworkInput
from ffconv.interop.onnx_graph import operators
from ffconv.nn import LocalFourierUnit

RUNNERS = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


@pytest.fixture
def network() -> nn.Module:
    return trained(TinyNetwork())


def write(network: nn.Module, path: Path, **config) -> ExportReport:
    """Without the check of `export`: the tests make their own."""
    return export(network, path, TINY_INPUT, ExportConfig(**config), check=None)


@pytest.mark.parametrize(
    ("transform", "opset", "engine"),
    [
        ("matrix", 13, "onnxruntime"),
        ("matrix", 18, "onnxruntime"),
        ("matrix", 18, "openvino"),
        ("fft", 17, "onnxruntime"),
        ("fft", 18, "onnxruntime"),
        ("fft", 20, "onnxruntime"),
    ],
)
def test_other_engines_compute_the_network(transform, opset, engine, network, tmp_path: Path):
    write(network, tmp_path / "x.onnx", transform=transform, opset=opset)
    x = torch.randn(1, 3, 33, 22)
    assert relative_difference(RUNNERS[engine](tmp_path / "x.onnx", x), network(x)) < 1e-5


@pytest.mark.parametrize(("transform", "opset"), [("matrix", 13), ("fft", 17), ("fft", 20)])
def test_the_file_has_the_opset_asked_for(transform, opset, network, tmp_path: Path):
    write(network, tmp_path / "x.onnx", transform=transform, opset=opset)
    model = onnx.load(tmp_path / "x.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    onnx.checker.check_model(model, full_check=transform == "matrix")


def test_the_fft_form_has_standard_transforms(network, tmp_path: Path):
    report = write(network, tmp_path / "x.onnx", transform="fft")
    # Two units with a transform and its inverse, along two axes each.
    assert report.operators["DFT"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("transform", ["fft", "matrix"])
def test_open_sizes_take_others(transform, network, tmp_path: Path):
    write(network, tmp_path / "x.onnx", transform=transform, dynamic=("batch", "size"))
    for size in ((1, 3, 34, 57), (3, 3, 21, 40)):
        x = torch.randn(size)
        assert relative_difference(by_onnxruntime(tmp_path / "x.onnx", x), network(x)) < 1e-5


def test_open_axes_have_names(tmp_path: Path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    write(network, tmp_path / "x.onnx", dynamic=("batch", "size"))
    graph = onnx.load(tmp_path / "x.onnx").graph
    dims = graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_fused_networks_have_no_norm_but_those_of_spectra(network, tmp_path: Path):
    report = write(network, tmp_path / "x.onnx", fuse=True)
    assert "BatchNormalization" not in report.operators
    x = torch.randn(1, 3, 33, 22)
    assert relative_difference(by_onnxruntime(tmp_path / "x.onnx", x), network(x)) < 1e-5


@pytest.mark.parametrize("engine", RUNNERS)
def test_float16_is_taken_and_given(engine, network, tmp_path: Path):
    write(network, tmp_path / "x.onnx", dtype="float16")
    x = torch.randn(1, 3, 33, 22)
    y = RUNNERS[engine](tmp_path / "x.onnx", x.half())
    assert y.dtype == torch.float16
    assert relative_difference(y, network(x)) < 1e-2


def test_float16_keeps_transforms_in_float32(network, tmp_path: Path):
    write(network, tmp_path / "x.onnx", dtype="float16", transform="fft")
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "x.onnx"))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    read = {node.input[0] for node in model.graph.node if node.op_type == "DFT"}
    assert {kinds[name] for name in read} == {onnx.TensorProto.FLOAT}


def test_bfloat16_weights_run_everywhere(network, tmp_path: Path):
    write(network, tmp_path / "x.onnx", dtype="bfloat16")
    x = torch.randn(1, 3, 33, 22)
    expected = network(x)
    rounded = {name: value.to(torch.bfloat16).float() for name, value in network.state_dict().items()}
    for name in ("stem.weight", "ffc.weight_l2l", "fc.weight"):
        network.get_parameter(name).data = rounded[name]
    for runner in RUNNERS.values():
        y = runner(tmp_path / "x.onnx", x)
        assert y.dtype == torch.float32
        assert 1e-5 < relative_difference(y, expected) < 5e-2


def test_bfloat16_is_what_weights_are_stored_in(network, tmp_path: Path):
    write(network, tmp_path / "x.onnx", dtype="bfloat16")
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "x.onnx").graph.initializer}
    assert stored["fc.weight_bfloat16"] == onnx.TensorProto.BFLOAT16
    assert stored["fc.bias"] == onnx.TensorProto.FLOAT
    assert stored["ffc.spectral.fu.conv.weight"] == onnx.TensorProto.FLOAT  # as under .bfloat16()


def test_the_file_says_what_it_is(network, tmp_path: Path):
    write(network, tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    found = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert found == {
        "task": "classification",
        "input_axes": ["batch", "channels", "height", "width"],
        "input_size": [3, 33, 22],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.3],
        "classes": ["a", "b", "ü", "d"],
    }
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("image", "logits")
    assert model.producer_name == "ffconv"


_LOAD_ELSEWHERE = """
import sys
sys.modules.update(ffconv=None, timm=None)
import json, torch
path, form, values = sys.argv[1:]
x, expected = torch.load(values)
extra = {"ffconv.json": ""}
if form == "torchscript":
    network = torch.jit.load(path, _extra_files=extra)
else:
    network = torch.export.load(path, extra_files=extra).module()
assert (network(x) - expected).abs().max() < 1e-5
print(json.loads(extra["ffconv.json"])["input_size"])
"""


@pytest.mark.parametrize(("form", "transform"), [("torch-export", "fft"), ("torchscript", "matrix")])
def test_torchs_files_load_where_ffconv_is_not(form, transform, network, tmp_path: Path):
    write(network, tmp_path / "x.pt", to=form, transform=transform)
    x = torch.randn(1, 3, 33, 22)
    torch.save((x, network(x).detach()), tmp_path / "values.pt")
    words = [str(tmp_path / "x.pt"), form, str(tmp_path / "values.pt")]
    done = subprocess.run([sys.executable, "-c", _LOAD_ELSEWHERE, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[3, 33, 22]\n"), done.stderr


@pytest.mark.parametrize(
    ("transform", "dynamic"),
    [
        ("fft", ()),
        ("matrix", ()),
        pytest.param("fft", ("batch", "size"), marks=pytest.mark.slow),
        pytest.param("matrix", ("batch", "size"), marks=pytest.mark.slow),
    ],
)
def test_torch_export_has_no_operator_of_ours(transform, dynamic, network, tmp_path: Path):
    write(network, tmp_path / "x.pt2", to="torch-export", transform=transform, dynamic=dynamic)
    nodes = torch.export.load(tmp_path / "x.pt2").graph.nodes
    assert not [node for node in nodes if "ffconv" in str(node.target)]


@pytest.mark.parametrize("form", ["torch-export", "torchscript"])
def test_torchs_files_take_other_batches(form, network, tmp_path: Path):
    config = ExportConfig(to=form, dynamic=("batch",))
    report = export(network, tmp_path / "x.pt", TINY_INPUT, config)
    sizes = [found.input.split()[1] for found in report.differences]
    assert sizes == ["2x3x33x22", "1x3x33x22", "3x3x33x22"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("form", ["torch-export", "torchscript"])
def test_torchs_files_in_half_precision(dtype, form, network, tmp_path: Path):
    report = export(network, tmp_path / "x.pt", TINY_INPUT, ExportConfig(to=form, dtype=dtype))
    assert 1e-6 < report.differences[0].relative < {"float16": 1e-2, "bfloat16": 5e-2}[dtype]


def test_the_check_takes_inputs_of_the_users(network, tmp_path: Path):
    check = Check(inputs=(("mine", torch.ones(1, 3, 33, 22)),))
    report = export(network, tmp_path / "x.pt", TINY_INPUT, ExportConfig(to="torchscript"), check=check)
    assert [found.input for found in report.differences] == ["random 1x3x33x22", "mine 1x3x33x22"]


def test_a_file_that_fails_the_check_is_not_kept(network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x.pt").write_text("earlier")
    # What is traced is another function than what is run.
    monkeypatch.setattr(LocalFourierUnit, "forward", _wrong_when_traced(LocalFourierUnit.forward))
    with pytest.raises(InputError, match=r"is wrong and was not kept: with random 1x3x33x22 it differs"):
        export(network, tmp_path / "x.pt", TINY_INPUT, ExportConfig(to="torchscript"))
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]
    assert (tmp_path / "x.pt").read_text() == "earlier"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (torch.full((1, 4), torch.nan), r"is wrong and was not kept: .* differs from the network by nan"),
        (torch.zeros(4), r"with random 1x3x33x22 the exported file gives 4, the network 1x4"),
    ],
    ids=["no number", "shape"],
)
def test_what_is_no_result_of_the_network_fails_the_check(
    found: torch.Tensor, message: str, network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ffconv.interop.export.open_exported", lambda *_: lambda x: found)
    with pytest.raises(InputError, match=message):
        export(network, tmp_path / "x.pt", TINY_INPUT, ExportConfig(to="torchscript"))
    assert not list(tmp_path.iterdir())


def _wrong_when_traced(forward):
    return lambda self, x: forward(self, x) * (1.01 if torch.jit.is_tracing() else 1)


def test_the_network_is_left_alone(tmp_path: Path):
    network = TinyNetwork().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    write(network, tmp_path / "x.pt", to="torchscript", dtype="bfloat16", fuse=True)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_exporters_are_silent(
    network, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        write(network, tmp_path / "x.onnx", transform="fft", opset=17)
    printed = capfd.readouterr()
    theirs = [record for record in caplog.records if not record.name.startswith("ffconv.")]
    assert (printed.out, printed.err, theirs) == ("", "", [])


def test_operators_inside_branches_are_counted():
    inner = onnx.helper.make_graph([onnx.helper.make_node("DFT", ["x"], ["y"])], "inner", [], [])
    node = onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "outer", [], []))
    assert operators(model) == {"If": 1, "DFT": 2}


class _Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_exported_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"^_Branching cannot be exported: .+") as raised:
        export(_Branching(), tmp_path / "x.pt2", TINY_INPUT, ExportConfig(to="torch-export"))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"transform": "fft", "opset": 16},
            r"opset=16 must lie in 17 to 23 \(the operator DFT is of opset 17\)",
        ),
        ({"transform": "matrix", "opset": 12}, "opset=12 must lie in 13 to 23$"),
        ({"opset": 99}, "opset=99 must lie in 13 to 23"),
        ({"dynamic": ("time",)}, "dynamic=time is for networks of clips"),
        ({"dynamic": ("channels",)}, r"dynamic=\['channels'\] must be among batch, size, time"),
        ({"to": "torchscript", "dynamic": ("size",)}, "a trace keeps the size"),
        ({"to": "coreml"}, "to='coreml' must be one of onnx, torch-export, torchscript"),
    ],
)
def test_wrong_forms_are_refused(config, message: str, network, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        write(network, tmp_path / "x.onnx", **config)


def test_a_size_that_the_network_refuses_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"Linear takes no input of 1x3x5x7: .*cannot be mult"):
        export(nn.Linear(4, 4), tmp_path / "x.onnx", NetworkInput("classification", (3, 5, 7)))


def test_a_missing_folder_is_named(network, tmp_path: Path):
    with pytest.raises(InputError, match="there is no folder"):
        write(network, tmp_path / "none" / "x.onnx")


def test_only_a_file_is_written_over(network, tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot write .*: it is no ordinary file"):
        write(network, tmp_path)


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("onnxscript", r"ONNX files need the packages onnx and onnxscript: pip install 'ffconv\[export\]'"),
        ("onnxruntime", r"onnxruntime runs the exported file and is not installed: pip install 'ffconv\[ex"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str, message: str, network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=message):
        export(network, tmp_path / "x.onnx", TINY_INPUT)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_refuses_the_file_is_one_line(network, tmp_path: Path):
    with pytest.raises(InputError, match="openvino does not take the exported file: ") as raised:
        export(
            network,
            tmp_path / "x.onnx",
            TINY_INPUT,
            ExportConfig(transform="fft"),
            check=Check(engine="openvino"),
        )
    assert "\n" not in str(raised.value)
