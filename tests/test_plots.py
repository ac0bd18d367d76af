"""The pictures, read back from what was drawn."""
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from minifast import plots

LRS = np.geomspace(1e-5, 10, 61)
DESCENT = np.interp(np.log10(LRS), [-5, -3, -1, 0], [0.7, 0.7, 0.1, 0.1])


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def drawn(axis, i=0):
    return [d.tolist() for d in axis.lines[i].get_data()]


def labels(axis):
    return axis.get_xlabel(), axis.get_ylabel()


def legend(axis):
    return [t.get_text() for t in axis.get_legend().get_texts()]


# where it is drawn

@pytest.mark.parametrize("draw, n", [
    (lambda ax: plots.plot_lr([1, 2], ax=ax), 1),
    (lambda ax: plots.plot_lr([1, 2], [3, 4], ax=ax), 2),
    (lambda ax: plots.plot_range_test([1, 2], [3, 4], ax=ax), 1),
    (lambda ax: plots.plot_losses([1, 2], ax=ax), 1),
    (lambda ax: plots.plot_metrics(["a"], [[1]], ax=ax), 1),
    (lambda ax: plots.plot_metrics(list("abcd"), [[1, 2, 3, 4]], ax=ax), 4),
])
def test_draws_into_the_callers_axes_or_one_new_figure(draw, n):
    def as_list(axes):
        return axes if isinstance(axes, list) else [axes]

    new = as_list(draw(None))
    assert len(new) == n and plt.get_fignums() == [1] and {a.figure.number for a in new} == {1}

    figure, mine = plt.subplots(1, n)
    assert as_list(draw(mine)) == np.ravel(mine).tolist()
    assert plt.get_fignums() == [1, 2] and all(a.lines for a in np.ravel(mine))
    with pytest.raises(ValueError, match=f"ax holds {n + 1} axes, and {n} are drawn"):
        draw(plt.subplots(1, n + 1)[1])


def test_a_figure_without_pyplot_will_do():
    from matplotlib.figure import Figure
    axis = Figure().add_subplot()
    assert plots.plot_losses([1.0], ax=axis) is axis
    assert plt.get_fignums() == []


@pytest.mark.parametrize("draw", [lambda: plots.plot_lr([]), lambda: plots.plot_losses([]),
                                  lambda: plots.plot_range_test([1, 2], [float("nan"), float("inf")])])
def test_nothing_to_plot_is_said_before_a_figure_is_made(draw):
    with pytest.raises(ValueError, match="nothing to plot"):
        draw()
    assert plt.get_fignums() == []


# what is drawn

def test_lr_and_momentum_per_batch():
    lr, mom = plots.plot_lr([0.1, 0.2, 0.3], [0.95, 0.9, 0.85], start=5)
    assert drawn(lr) == [[5, 6, 7], [0.1, 0.2, 0.3]] and labels(lr) == ("Iterations", "Learning rate")
    assert drawn(mom) == [[5, 6, 7], [0.95, 0.9, 0.85]] and labels(mom) == ("Iterations", "Momentum")


def test_range_test_marks_its_points_on_the_curve():
    axis = plots.plot_range_test(LRS[:51], DESCENT[:51], {"Steepest": 1e-2, "Lowest / 10": 0.02})
    assert_allclose(drawn(axis), [LRS[:51], DESCENT[:51]])
    assert axis.get_xscale() == "log" and labels(axis) == ("Learning rate", "Loss")
    assert legend(axis) == ["Steepest: 1.00E-02", "Lowest / 10: 2.00E-02"]
    assert_allclose(drawn(axis, 1), [[1e-2], [0.4]])  # half way down
    assert len({line.get_marker() for line in axis.lines}) == 3  # told apart without colours


@pytest.mark.parametrize("scale, offset", [(1, 0), (1e9, 0), (1, -50)])
@pytest.mark.parametrize("blow_up", [1e3, float("inf")])
def test_a_divergence_does_not_flatten_the_descent(scale, offset, blow_up):
    losses = scale * np.where(LRS > 2, blow_up, DESCENT) + offset
    low, high = plots.plot_range_test(LRS, losses).get_ylim()
    assert low < 0.1 * scale + offset and 0.7 * scale + offset < high <= 1.01 * scale + offset


def test_a_loss_that_only_rises_is_still_seen():
    low, high = plots.plot_range_test(LRS, np.where(LRS > 2, 1e6, 0.5 + np.arange(61) / 100)).get_ylim()
    assert low < 0.5 and 0.8 < high < 2


def test_a_second_range_test_leaves_the_first_in_view():
    axis = plots.plot_range_test(LRS, DESCENT + 3)
    plots.plot_range_test(LRS, np.where(LRS > 2, 1e3, DESCENT), ax=axis)
    low, high = axis.get_ylim()
    assert low < 0.1 and 3.7 < high < 4
    assert axis.lines[0].get_color() != axis.lines[1].get_color()


def test_losses_stand_at_the_batches_they_belong_to():
    axis = plots.plot_losses([4.0, 3.0, 2.0, 1.0], [2, 3, 4], [2.5, None, 1.5], raw=[4, 900, 1, 0.5])
    assert drawn(axis) == [[1, 2, 3, 4], [4, 3, 2, 1]]
    assert drawn(axis, 1) == [[2, 4], [2.5, 1.5]] and axis.lines[1].get_marker() == "o"
    assert drawn(axis, 2) == [[1, 2, 3, 4], [4, 900, 1, 0.5]]
    assert legend(axis) == ["Train, smoothed", "Validation", "Train, each batch"]
    assert labels(axis) == ("Batches processed", "Loss")
    assert axis.get_ylim()[1] < 5  # the outlier among the raw losses does not set the scale


@pytest.mark.parametrize("scale, offset", [(1, 0), (1e6, 0), (1, -50)])
def test_the_batches_own_losses_are_in_view_but_for_outliers(scale, offset):
    done = np.arange(300)
    smooth = scale * (0.2 + np.exp(-done / 50)) + offset
    raw = smooth + scale * np.random.default_rng(0).normal(0, 0.1, 300)
    low, high = plots.plot_losses(smooth, raw=raw).get_ylim()
    assert low < raw.min() and raw.max() < high
    spiked = raw.copy()
    spiked[[50, 100, 299]] = scale * np.array([40, 900, -7]) + offset
    spiked[[7, 8]] = np.nan, np.inf
    low, high = plots.plot_losses(smooth, raw=spiked).get_ylim()
    assert low < np.delete(raw, [50, 100, 299]).min() and np.delete(raw, [50, 100, 299]).max() < high
    assert high - low < 1.5 * np.ptp(raw)


def test_a_noisy_loss_that_hardly_falls_is_in_view():
    raw = 2 + np.random.default_rng(0).normal(0, 0.5, 200)
    low, high = plots.plot_losses(np.linspace(2.01, 2, 200), raw=raw).get_ylim()
    assert np.mean((low < raw) & (raw < high)) > 0.98


def test_a_second_run_leaves_the_first_in_view():
    axis = plots.plot_losses([9.0, 8.0], raw=[9, 8])
    plots.plot_losses([2.0, 1.0, 1.0], raw=[2, 1, 300], ax=axis)
    low, high = axis.get_ylim()
    assert low < 1 and 9 < high < 11


def test_losses_after_skipped_batches_and_without_validation():
    axis = plots.plot_losses(torch.tensor([2.0, 1.0]), start=10)
    assert drawn(axis) == [[11, 12], [2, 1]] and legend(axis) == ["Train, smoothed"]
    assert legend(plots.plot_losses([1.0], [1], [float("nan")])) == ["Train, smoothed"]


def test_a_metric_an_axes_with_the_unmeasured_left_out():
    rows = [[0.9, torch.tensor(0.5)], [None, 0.25], [0.95, 0.125]]
    accuracy, error = plots.plot_metrics(["accuracy", "error_rate"], rows)
    assert drawn(accuracy) == [[0, 2], [0.9, 0.95]] and labels(accuracy) == ("Epoch", "accuracy")
    assert drawn(error) == [[0, 1, 2], [0.5, 0.25, 0.125]] and labels(error) == ("Epoch", "error_rate")
    accuracy.figure.canvas.draw()
    assert all(float(t).is_integer() for t in accuracy.get_xticks())


def test_metrics_over_batches_show_a_single_epoch():
    [axis] = plots.plot_metrics(["accuracy"], [[0.9]], at=[193])
    assert drawn(axis) == [[193], [0.9]] and axis.lines[0].get_marker() == "o"
    assert labels(axis) == ("Batches processed", "accuracy")


def test_no_metrics_is_an_error():
    with pytest.raises(ValueError, match="no metrics to plot.*metrics="):
        plots.plot_metrics([], [[], []])


# showing

def test_show_leaves_a_figure_without_windows_alone():
    figure = plots.plot_losses([1.0]).figure
    plots.show(figure)  # matplotlib itself would warn here
    assert plt.get_backend().lower() == "agg" and plt.get_fignums() == [figure.number]


def test_show_in_a_notebook_shows_once():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    code = ("%matplotlib inline\nimport matplotlib.pyplot as plt\nfrom minifast import plots\n"
            "plots.show(plots.plot_losses([2.0, 1.0]).figure)\nprint(plt.get_fignums())")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(book, timeout=60).execute()
    pictures = [o for o in book.cells[0].outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 1
    assert book.cells[0].outputs[-1].text == "[]\n"


def test_runs_in_one_picture_are_told_apart_by_their_labels():
    axis = Figure().add_subplot()
    for label in ("keras", "smith"):
        plots.plot_losses([2, 1], ax=axis, label=label)
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["keras: Train, smoothed", "smith: Train, smoothed"]
    axis = Figure().add_subplot()
    for label in ("keras", "smith"):
        plots.plot_metrics(["accuracy"], [[0.5], [0.6]], ax=axis, label=label)
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["keras", "smith"]
