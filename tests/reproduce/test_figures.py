"""Figures 3 and 4 from two short runs: what is drawn, and what the captions say."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import scanmix
from scanmix.cli import app
from scanmix.config import UserError
from scanmix.evaluate.accuracy import right_ones
from scanmix.reproduce.figures import elbo_figure, figure3, figure4, rank_share

NETWORK = {"widths": [4, 8], "blocks": [1, 1], "stem_stride": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "bare.toml").touch()
    train, test = scanmix.load("digits", per_class=8, limit_test=40)
    noisy = scanmix.add_noise(train, "symmetric", rate=0.5, seed=0)
    extra: dict[str, dict[str, Any]] = {"dividemix": {"warmup": 1}, "cross_entropy": {}}
    for method, more in extra.items():
        scanmix.train(
            noisy, test=test, method=method, out=folder / method, recipe=str(folder / "bare.toml"), network=NETWORK,
            threads=1, progress=False, epochs=3, batch_size=16, monitor={"elbo": 20}, **more,
        )  # fmt: skip
    return [folder / "dividemix", folder / "cross_entropy"]


def test_figure_3_has_a_curve_for_each_run(runs: list[Path]) -> None:
    drawn = figure3(runs)
    lines = [part for part in ET.fromstring(drawn.svg).iter() if "line tone" in part.get("class", "")]
    assert len([line for line in lines if line.tag.endswith("path")]) == 4  # two curves, two in the legend
    curve = scanmix.open_run(runs[0]).accuracies
    last, best = 100 * np.mean(curve[-10:]), 100 * max(curve)
    assert f"dividemix has {last:.1f} % in its last ten epochs, {best - last:.1f} below its best" in drawn.caption


def test_figure_4_measures_how_losses_part(runs: list[Path]) -> None:
    drawn = figure4(runs)
    ET.fromstring(drawn.svg)
    assert "dividemix, after epoch 2 of 3" in drawn.svg  # the first epoch after warm-up
    assert "cross_entropy, after epoch 1 of 3" in drawn.svg
    assert len(re.findall(r"a wrong label has the larger loss in \d+\.\d %", drawn.caption)) == 2


def test_the_elbo_of_each_run_has_a_row_and_the_caption_counts(runs: list[Path]) -> None:
    drawn = elbo_figure(runs)
    root = ET.fromstring(drawn.svg)
    assert (root.get("width"), root.get("height")) == ("1260", "480")
    assert [chart.get("y") for chart in root if chart.get("x")] == ["0"] * 3 + ["240"] * 3
    lines = scanmix.open_run(runs[1]).metrics
    lowered = sum(line["elbo/gain"] < 0 for line in lines)
    assert f"cross_entropy lowered it in {lowered} of 3 epochs." in drawn.caption


def test_rank_share_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    large, small = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    slow = np.mean([(one > other) + (one == other) / 2 for one in large for other in small])
    assert rank_share(large, small) == pytest.approx(slow)


def test_the_command_writes_and_says_it(runs: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", "figure4", *map(str, runs), "--out", str(tmp_path / "f.svg")])
    assert result.exit_code == 0 and "Losses of right and wrong training labels" in result.stdout
    assert (tmp_path / "f.svg").read_text().startswith("<svg")
    result = CliRunner().invoke(app, ["reproduce", "figure3"])
    assert result.exit_code == 2 and "one or two run folders" in result.output
    result = CliRunner().invoke(app, ["evaluate", str(runs[0]), "--against", str(runs[1])])
    assert result.exit_code == 0 and re.search(r"Difference: [+-]\d+\.\d points .* p = ", result.stdout)
    assert "among the first five guesses" in result.stdout


def test_two_runs_are_compared_on_the_data_that_is_named(runs: list[Path]) -> None:
    test = scanmix.load("digits")[1]
    assert test is not None
    first, second = (right_ones(run, test).mean() for run in runs)
    said = CliRunner().invoke(app, ["evaluate", str(runs[0]), "--data", "digits", "--against", str(runs[1])]).output
    assert f"of {len(test)} images" in said and len(test) > 40
    assert f"Difference: {100 * (first - second):+.1f} points" in said


def test_runs_that_tell_nothing_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="different names"):
        figure3([runs[0], runs[0]])
    train, _ = scanmix.load("digits", per_class=4)
    scanmix.train(
        train, method="cross_entropy", out=tmp_path / "untested", network=NETWORK, epochs=2, progress=False, threads=1
    )
    with pytest.raises(UserError, match="no curve of test accuracy"):
        figure3([tmp_path / "untested"])
    with pytest.raises(UserError, match=r"measured no ELBO; train it with --set monitor\.elbo=200"):
        elbo_figure([tmp_path / "untested"])
    with pytest.raises(UserError, match="no true labels"):
        figure4([tmp_path / "untested"])
