"""Timing and memory: what is measured, in which order, of which work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ffconv.analysis import benchmark
from ffconv.analysis.benchmark import Effort, Measurement, compare
from ffconv.analysis.benchmark_report import as_json, as_table
from ffconv.analysis.memory import MIB, peak_during
from ffconv.analysis.networks import NetworkSpec
from ffconv.analysis.subjects import OperatorShape, network_subject, operator_subjects
from ffconv.analysis.work import MEMORY_FORMATS, Setting, Subject, Work
from ffconv.dispatch import current_fft_backend
from ffconv.environment import describe_environment
from ffconv.errors import InputError
from ffconv.nn import FFC2d

QUICK = Effort(rounds=2, warmup=1, block=0)


class Probe(nn.Module):
    """Writes down what it is given."""

    seen: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x * self.weight


def make_probe(*, is_operator: bool) -> tuple[Subject, list[Probe]]:
    built: list[Probe] = []

    def build() -> Probe:
        built.append(Probe())
        return built[-1]

    return Subject("probe", build, lambda batch, size: torch.randn(batch, 3, *size), is_operator), built


def subject(name: str) -> Subject:
    return Subject(name, nn.ReLU, lambda batch, size: torch.randn(batch, 3, *size))


def test_inference_runs_in_evaluation_mode_without_a_graph() -> None:
    made, (built) = make_probe(is_operator=False)
    Work(made, Setting(batch_size=2, size=(5, 4)), "contiguous")()
    (probe,) = built
    assert not probe.training
    assert probe.seen[0].shape == (2, 3, 5, 4)
    assert probe.weight.grad is None


def test_a_training_step_of_a_network_updates_it() -> None:
    made, built = make_probe(is_operator=False)
    work = Work(made, Setting(mode="training", batch_size=2, size=(4, 4)), "contiguous")
    work()
    (probe,) = built
    assert probe.training
    assert probe.weight.item() != 1
    assert probe.weight.grad is None
    assert not probe.seen[0].requires_grad


def test_a_training_step_of_an_operator_gives_its_input_a_gradient_and_updates_nothing() -> None:
    made, built = make_probe(is_operator=True)
    gradients = []
    work = Work(made, Setting(mode="training", batch_size=1, size=(4, 4)), "contiguous")
    next(iter(built)).weight.register_hook(gradients.append)
    work()
    (probe,) = built
    assert probe.seen[0].requires_grad
    assert len(gradients) == 1
    assert probe.weight.item() == 1


@pytest.mark.parametrize(("name", "layout"), MEMORY_FORMATS.items())
def test_inputs_come_in_the_memory_format(name: str, layout: torch.memory_format) -> None:
    made, built = make_probe(is_operator=False)
    Work(made, Setting(batch_size=2, size=(4, 4)), name)()
    assert built[0].seen[0].is_contiguous(memory_format=layout)


def test_half_precision_is_by_autocast() -> None:
    conv = Subject("conv", lambda: nn.Conv2d(3, 3, 1), lambda batch, size: torch.randn(batch, 3, *size))
    work = Work(conv, Setting(dtype="bfloat16", batch_size=1, size=(4, 4)), "contiguous")
    assert work._forward().dtype == torch.bfloat16
    assert {parameter.dtype for parameter in work._model.parameters()} == {torch.float32}


def test_float64_is_throughout() -> None:
    made, built = make_probe(is_operator=False)
    Work(made, Setting(dtype="float64", batch_size=1, size=(4, 4)), "contiguous")()
    assert built[0].seen[0].dtype == built[0].weight.dtype == torch.float64


def test_fusion_folds_norms_and_keeps_the_function() -> None:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        nn.init.uniform_(model[1].running_var, 0.5, 2.0)
        return model

    conv = Subject("conv", build, lambda batch, size: torch.randn(batch, 3, *size))
    eager, fused = (
        Work(conv, Setting(engine=engine, batch_size=1, size=(6, 6)), "contiguous")
        for engine in ("eager", "fused")
    )
    assert any(isinstance(module, nn.BatchNorm2d) for module in eager._model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused._model.modules())
    torch.testing.assert_close(eager._forward(), fused._forward())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["compile", "fused+compile"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_compiled_work_keeps_the_function(engine: str, dtype: str, tolerance: float) -> None:
    made = operator_subjects("ffc", OperatorShape(channels=32), (6, 6))[0]
    eager, compiled = (
        Work(made, Setting(engine=each, dtype=dtype, batch_size=2, size=(6, 6)), "channels_last")
        for each in ("eager", engine)
    )
    with torch.inference_mode():
        torch.testing.assert_close(compiled._forward(), eager._forward(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("engine", "mode"), [("compile", None), ("compile+graphs", "reduce-overhead")])
def test_compiled_networks_are_recorded_where_it_is_asked_for(
    engine: str, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(torch, "compile", lambda model, *, mode: seen.append(mode) or model)
    setting = Setting(engine="compile", batch_size=1, size=(4, 4))
    object.__setattr__(setting, "engine", engine)  # which a machine without CUDA refuses
    Work(subject("a"), setting, "contiguous")()
    assert seen == [mode]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_recorded_work_keeps_the_function(mode: Any) -> None:
    made = operator_subjects("ffc", OperatorShape(channels=32), (6, 6))[0]
    eager, recorded = (
        Work(
            made, Setting(mode=mode, engine=engine, device="cuda", batch_size=2, size=(6, 6)), "channels_last"
        )
        for engine in ("eager", "compile+graphs")
    )
    for _ in range(3):
        recorded()
        eager()
    torch.testing.assert_close(recorded._forward().clone(), eager._forward(), rtol=1e-3, atol=1e-3)


def test_resident_memory_is_parameters_buffers_inputs_and_momentum() -> None:
    made, _ = make_probe(is_operator=False)
    work = Work(made, Setting(mode="training", batch_size=2, size=(4, 4)), "contiguous")
    before = work.resident_bytes
    work()
    assert before == 4 + 2 * 3 * 16 * 4
    assert work.resident_bytes == before + 4


def test_peak_memory_is_what_is_alive_at_once() -> None:
    def step() -> None:
        first = torch.empty(MIB)
        second = torch.empty(2 * MIB)
        del first
        torch.empty(MIB // 2)
        del second

    assert peak_during(step, torch.device("cpu")) == 3 * MIB * 4


def test_all_subjects_take_turns_and_another_begins_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def timed(work: Work, repeats: int) -> float:
        order.append(work.name)
        return {"a": 0.002, "b": 0.001}[work.name]

    monkeypatch.setattr(benchmark, "_seconds", timed)
    first, second = compare([subject("a"), subject("b")], Setting(size=(4, 4)), Effort(3, 0, 0.0), peer="b")
    assert order[-6:] == ["a", "b", "b", "a", "a", "b"]
    assert (first.time_ratio, second.time_ratio) == (2, 1)
    assert first.milliseconds == (2.0, 2.0, 2.0)


def test_the_better_memory_format_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        benchmark, "_seconds", lambda work, repeats: 1 if work.memory_format == "channels_last" else 2
    )
    (measured,) = compare([subject("a")], Setting(size=(4, 4)), QUICK, peer="a")
    assert measured.memory_format == "channels_last"


def test_one_quick_step_does_not_choose_the_memory_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps of one format, and a single block, meet an idle machine."""
    calls = dict.fromkeys(MEMORY_FORMATS, 0)

    def timed(work: Work, repeats: int) -> float:
        calls[work.memory_format] += 1
        if work.memory_format == "contiguous":
            return 0.1 if calls["contiguous"] <= 4 else 3.0
        return 2.0

    monkeypatch.setattr(benchmark, "_seconds", timed)
    (measured,) = compare([subject("a")], Setting(size=(4, 4)), QUICK, peer="a")
    assert measured.memory_format == "channels_last"


def test_the_two_memory_formats_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def timed(work: Work, repeats: int) -> float:
        order.append(work.memory_format)
        return 1.0

    monkeypatch.setattr(benchmark, "_seconds", timed)
    compare([subject("a")], Setting(size=(4, 4)), Effort(1, 0, 0.0), peer="a")
    trial = order[6:-1]  # after the steps that tell how many make a block, before the round that is measured
    assert trial[:4] == ["contiguous", "channels_last", "channels_last", "contiguous"]
    assert trial.count("contiguous") == trial.count("channels_last")


@pytest.mark.parametrize("name", MEMORY_FORMATS)
def test_a_memory_format_that_is_asked_for(name: Any) -> None:
    (measured,) = compare([subject("a")], Setting(size=(4, 4), memory_format=name), QUICK, peer="a")
    assert measured.memory_format == name


def test_a_block_lasts_at_least_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    repeats: list[int] = []

    def timed(work: Work, times: int) -> float:
        repeats.append(times)
        return 0.004

    monkeypatch.setattr(benchmark, "_seconds", timed)
    compare([subject("a")], Setting(size=(4, 4)), Effort(1, 0, 0.01), peer="a")
    assert repeats[-1] == 3


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    class Threads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return x

    counting = Subject("a", Threads, lambda batch, size: torch.randn(batch, 3, *size))
    compare([counting], Setting(size=(4, 4)), Effort(1, 1, 0, threads=before + 1), peer="a")
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_a_step_runs_by_the_transforms_asked_for() -> None:
    seen: list[str] = []

    class Engines(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(current_fft_backend())
            return x

    looking = Subject("a", Engines, lambda batch, size: torch.randn(batch, 3, *size))
    compare([looking], Setting(size=(4, 4), fft_backend="dft_matmul"), Effort(1, 1, 0), peer="a")
    assert set(seen) == {"dft_matmul"}
    assert current_fft_backend() == "auto"


def test_ratios_and_quartiles() -> None:
    measured = Measurement("a", "b", Setting(), "contiguous", (1.0, 2.0, 3.0, 4.0, 5.0), 8.0, 1.5, 2.0)
    assert measured.median == 3
    assert measured.quartiles == (2, 4)


@pytest.mark.parametrize("operator", ["fourier-unit", "spectral-transform", "ffc"])
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_operators_run_beside_the_transcription(operator: str, mode: str) -> None:
    setting = Setting(mode=mode, batch_size=1, size=(6, 6))
    subjects = operator_subjects(operator, OperatorShape(channels=32), setting.size)
    measured = compare(subjects, setting, QUICK, peer=subjects[-1].name)
    assert [one.subject for one in measured] == [one.name for one in subjects]
    assert measured[-1].time_ratio == measured[-1].memory_ratio == 1
    assert min(one.peak_mib for one in measured) > 0


def test_an_ffc_is_timed_with_the_shape_asked_for() -> None:
    shape = OperatorShape(channels=64, kernel_size=5, ratio=0.5, lfu=False, padding_mode="reflect")
    ours = operator_subjects("ffc", shape, (7, 7))[0].build()
    assert isinstance(ours, FFC2d)
    assert (ours.in_channels, ours.kernel_size, ours.ratio_in, ours.lfu) == (64, (5, 5), 0.5, False)
    assert (ours.padding, ours.padding_mode) == ((2, 2), "reflect")


def test_a_network_gets_colour_images() -> None:
    made = network_subject(NetworkSpec("resnet18"))
    assert made.name == "resnet18"
    image = made.make_input(2, (32, 48))
    assert isinstance(image, Tensor)
    assert image.shape == (2, 3, 32, 48)


def test_a_network_of_clips_gets_clips_with_channels_last() -> None:
    subject = network_subject(NetworkSpec("c2d_resnet18", {"num_classes": 2}))
    work = Work(subject, Setting(batch_size=1, size=(32, 32)), "channels_last")
    assert work._inputs.shape == (1, 3, 8, 32, 32)
    assert work._inputs.is_contiguous(memory_format=torch.channels_last_3d)
    work()


def test_the_report_names_units_machine_and_method() -> None:
    measured = Measurement("a", "b", Setting(), "contiguous", (1.0, 2.0, 3.0), 8.0, 1.5, 2.0)
    environment = describe_environment(torch.device("cpu"))
    table = as_table([measured], environment)
    assert dict(zip(table.columns, table.rows[0], strict=True))["median (ms)"] == "2.000"
    assert any(environment["processor"] in note for note in table.notes)
    (record,) = as_json([measured], environment)["measurements"]
    assert record["time_over_peer"] == 1.5
    assert record["milliseconds"] == (1.0, 2.0, 3.0)
    assert record["size"] == (224, 224)
    assert (
        record["fft_backend"] == dict(zip(table.columns, table.rows[0], strict=True))["FFT backend"] == "auto"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Setting(mode="training", engine="fused"), "engine=fused folds norms"),
        (
            lambda: Setting(engine="compile+graphs"),
            "engine=compile.graphs records CUDA graphs",
        ),
        (lambda: Setting(batch_size=0), "batch_size=0 must be at least 1"),
        (lambda: Setting(size=(0, 4)), "must be positive"),
        (lambda: Setting(memory_format="strided"), "memory_format='strided' must be one of faster, contig"),
        (lambda: Setting(fft_backend="fftw"), "fft_backend='fftw' must be one of auto, torch"),
        (lambda: Effort(rounds=0), "rounds=0 must be at least 1"),
        (lambda: Effort(threads=0), "threads=0 must be at least 1"),
        (lambda: OperatorShape(ratio=1.0), "ratio=1.0 must lie between 0 and 1"),
        (lambda: OperatorShape(channels=16), "channels=16 must leave at least 8"),
        (lambda: OperatorShape(kernel_size=2), "kernel_size=2 must be odd"),
        (lambda: operator_subjects("ffc", OperatorShape(), (7, 8)), "needs even sides"),
        (lambda: compare([subject("a")], Setting(), peer="b"), "peer='b' is none of a"),
        (lambda: compare([subject("a")] * 2, Setting(), peer="a"), "each subject once"),
    ],
)
def test_wrong_requests_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_missing_device_is_said_so() -> None:
    with pytest.raises(InputError, match="no CUDA device"):
        Setting(device="cuda")
