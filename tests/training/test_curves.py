from __future__ import annotations

import matplotlib.figure
import pytest

from ffconv.training.curves import draw_curves

SETTINGS = {"step": 5, "samples_per_second": 9.0}
ROWS = [
    {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "top1": 10.0, "loss": 2.5, **SETTINGS},
    {"epoch": 2, "lr": 0.01, "train_loss": 1.0, "top1": 60.0, "loss": 1.5, **SETTINGS},
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that are saved."""
    figures: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig

    def watched(figure: matplotlib.figure.Figure, *args: object, **options: object) -> None:
        figures.append(figure)
        save(figure, *args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", watched)
    return figures


def test_losses_share_a_panel_and_settings_have_none(drawn: list[matplotlib.figure.Figure]):
    assert draw_curves({"run": ROWS}).startswith(b"\x89PNG")
    panels = {axes.get_ylabel(): [line.get_label() for line in axes.get_lines()] for axes in drawn[0].axes}
    assert panels == {"learning rate": ["lr"], "loss": ["train_loss", "loss"], "top-1 (%)": ["top1"]}


def test_a_line_shows_the_rows_values(drawn: list[matplotlib.figure.Figure]):
    draw_curves({"run": ROWS})
    (line,) = drawn[0].axes[2].get_lines()
    assert line.get_xydata().tolist() == [[1.0, 10.0], [2.0, 60.0]]  # pyright: ignore


def test_the_averaged_weights_metric_is_drawn_beside_its_twin(drawn: list[matplotlib.figure.Figure]):
    draw_curves({"run": [row | {"ema_top1": 50.0} for row in ROWS]})
    assert [line.get_label() for line in drawn[0].axes[2].get_lines()] == ["top1", "ema_top1"]


def test_several_runs_are_told_apart(drawn: list[matplotlib.figure.Figure]):
    draw_curves({"a": ROWS, "b": ROWS[:1]})
    assert [line.get_label() for line in drawn[0].axes[2].get_lines()] == ["a: top1", "b: top1"]


def test_a_quantity_with_a_unit_says_so(drawn: list[matplotlib.figure.Figure]):
    draw_curves(
        {"run": [{"epoch": 1, "hole_psnr_thin": 20.0, "ema_psnr": 30.0, "hole_l1": 3.0, "ssim": 0.9}]}
    )
    assert [axes.get_ylabel() for axes in drawn[0].axes] == [
        "hole_psnr_thin (dB)", "psnr (dB)", "hole_l1 (%)", "ssim",
    ]  # fmt: skip


def test_there_is_a_legend_only_where_lines_are_told_apart(drawn: list[matplotlib.figure.Figure]):
    draw_curves({"run": ROWS})
    assert [axes.get_legend() is not None for axes in drawn[0].axes] == [False, True, False]


def test_percents_lie_between_0_and_100(drawn: list[matplotlib.figure.Figure]):
    draw_curves({"run": [{"epoch": 1, "top1": 100.0, "AP": 0.0, "hole_l1": 30.0}]})
    limits = {axes.get_ylabel(): axes.get_ylim() for axes in drawn[0].axes}
    assert limits == {"top-1 (%)": (0, 100), "AP (%)": (0, 1), "hole_l1 (%)": (0, 31.5)}


@pytest.mark.parametrize(("losses", "scale"), [((2.0, 1.5), "linear"), ((40.0, 1.5), "log")])
def test_losses_of_several_decades_have_a_log_scale(
    losses: tuple[float, float], scale: str, drawn: list[matplotlib.figure.Figure]
):
    draw_curves({"run": [{"epoch": n, "loss": loss} for n, loss in enumerate(losses, start=1)]})
    assert drawn[0].axes[0].get_yscale() == scale
