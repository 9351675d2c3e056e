import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scanmix.config import UserError, read_toml
from scanmix.data.examples import Examples
from scanmix.data.noise import add_noise
from scanmix.data.views import ViewSettings
from scanmix.methods import METHODS
from scanmix.methods.scanmix import ScanMix
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.training import Run, RunSettings, create_run, describe, open_run, resolve

runs = importlib.import_module("scanmix.training.settings")


def examples_of(count: int = 12, **more: Any) -> Examples:
    images = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    return Examples(images, torch.arange(count) % 3, ("a", "b", "c"), tuple(map(str, range(count))), **more)


def recipe_in(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def without_recipes(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Pretend that these recipes, each with 7 epochs, are all that is shipped."""
    monkeypatch.setattr(runs, "recipe_names", lambda: list(names))
    monkeypatch.setattr(runs, "load_recipe", lambda name: {"settings": {"epochs": 7}, "network": {"stem_stride": 2}})


@pytest.mark.parametrize("method", METHODS)
def test_every_field_is_resolved_and_builds_the_method_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_recipes(monkeypatch)
    settings = resolve(method, "digits")
    assert settings.recipe is None and not settings.oracle
    assert settings.build_method() == METHODS[method]()


def test_defaults_then_recipe_then_overrides(tmp_path: Path) -> None:
    recipe = recipe_in(
        tmp_path,
        'method = "scanmix"\noracle = true\n[settings]\nepochs = 9\nbatch_size = 32\n'
        "[settings.pretrain]\nepochs = 5\n[network]\nstem_stride = 2\n[views]\ncutout = 3",
    )
    settings = resolve(None, "digits", recipe, {"epochs": 2, "network": {"stem_kernel": 5}}, seed=4)
    method = settings.build_method()
    assert isinstance(method, ScanMix)
    assert (method.epochs, method.batch_size, method.pretrain.epochs) == (2, 32, 5)
    assert method.learning_rate == ScanMix().learning_rate
    assert isinstance(settings.network, PreActResNetSettings) and isinstance(settings.views, ViewSettings)
    assert (settings.network.stem_stride, settings.network.stem_kernel, settings.views.cutout) == (2, 5, 3)
    assert (settings.method, settings.seed, settings.oracle, settings.recipe) == ("scanmix", 4, True, recipe)


@pytest.mark.parametrize(
    "overrides",
    [
        {"pretrain": {"epochs": 5}},
        {"pretrain.epochs": 5},
        {"settings": {"pretrain": {"epochs": 5}}},
        {"settings.pretrain.epochs": 5},
    ],
)
def test_overrides_may_be_written_in_any_of_these_ways(overrides: dict[str, Any]) -> None:
    settings = resolve("scanmix", "digits", overrides={**overrides, "views.cutout": 2})
    assert settings.settings["pretrain"]["epochs"] == 5
    assert isinstance(settings.views, ViewSettings) and settings.views.cutout == 2


@pytest.mark.parametrize(
    ("shipped", "taken"),
    [
        (["digits/any/scanmix", "folder/any/scanmix"], "digits/any/scanmix"),
        (["folder/any/scanmix", "digits/any/mixup"], "folder/any/scanmix"),
        (["cifar10/any/scanmix"], None),
    ],
)
def test_a_recipe_is_found_for_the_data(shipped: list[str], taken: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    without_recipes(monkeypatch, *shipped)
    settings = resolve(None, "digits")
    assert settings.recipe == taken
    assert settings.settings["epochs"] == (7 if taken else 300)


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("scanmx", {}, "unknown method 'scanmx'; did you mean 'scanmix'"),
        ("scanmix", {"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'"),
        ("scan_dividemix", {"epochs": 3}, "'dividemix.epochs'"),
        ("scanmix", {"pretrain.epoch": 3}, r"pretrain\.epoch"),
        ("scanmix", {"network": {"width": [4]}}, r"network\.width.*network\.widths"),
        ("scanmix", {"views.cutouts": 4}, r"views\.cutouts.*views\.cutout"),
        ("scanmix", {"epochs": -1}, "epochs = -1: a whole number at least 1"),
        ("scanmix", {"epochs": "many"}, "epochs = 'many'"),
    ],
)
def test_a_wrong_setting_is_told_with_the_nearest_right_one(
    method: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        resolve(method, "digits", overrides=overrides)


def test_a_recipe_of_another_method_is_refused(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, 'method = "mixup"')
    assert resolve(None, "digits", recipe).method == "mixup"
    with pytest.raises(UserError, match="is for method 'mixup', not 'scanmix'"):
        resolve("scanmix", "digits", recipe)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"seed": 1}, False),
        ({"overrides": {"epochs": 5}}, False),
        ({"overrides": {"network": {"stem_stride": 4}}}, False),
        ({"overrides": {"views": {"cutout": 1}}}, False),
        ({"overrides": {"epochs": 300}}, True),
        ({"device": "cpu"}, True),
        ({"threads": 2}, True),
    ],
)
def test_identity_is_what_decides_the_weights(
    changed: dict[str, Any], same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_recipes(monkeypatch)
    first, second = resolve("scanmix", "digits"), resolve("scanmix", "digits", **changed)
    assert (first.config_hash() == second.config_hash()) is same


def settings_of(**more: Any) -> RunSettings:
    resolved = resolve("scanmix", "digits", overrides={"warmup": "3%", "views": {"mean": (0.5,)}}, threads=1)
    fields = {name: getattr(resolved, name) for name in RunSettings.__dataclass_fields__}
    return RunSettings(**{**fields, **more})


def test_run_toml_brings_the_same_settings_back(tmp_path: Path) -> None:
    source = {
        "train": {
            "load": {"source": "digits"},
            "split": "train",
            "steps": [{"noise": {"kind": "asymmetric", "mapping": {"1": 2}}}],
        }
    }
    settings = settings_of(source=source, fingerprint="f00", test_fingerprint="ba4")
    create_run(settings, examples_of(), tmp_path / "new" / "run")
    run = open_run(tmp_path / "new" / "run")
    assert run.settings == settings and run.settings.config_hash() == settings.config_hash()
    assert run.class_names == ("a", "b", "c")
    table = read_toml(tmp_path / "new" / "run" / "run.toml")
    assert table["versions"].keys() >= {"python", "torch", "numpy", "scanmix"}
    assert table["versions"]["torch"] == str(torch.__version__)
    assert table["data"] == describe(examples_of())


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(UserError, match="is no run"):
        create_run(settings_of(), examples_of(), tmp_path)
    with pytest.raises(UserError, match="is no run"):
        create_run(settings_of(), examples_of(), tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_killed_start_leaves_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "run.toml.123.part").write_text("method = ")
    create_run(settings_of(), examples_of(), tmp_path)
    assert (tmp_path / "run.toml").exists()


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run folder: it has no run\.toml"):
        open_run(tmp_path)


def test_a_mistyped_run_toml_is_told(tmp_path: Path) -> None:
    create_run(settings_of(), examples_of(), tmp_path)
    text = (tmp_path / "run.toml").read_text()
    (tmp_path / "run.toml").write_text(text.replace("seed = 0", 'seed = "zero"'))
    with pytest.raises(UserError, match=r"run\.toml: seed = 'zero'"):
        open_run(tmp_path)


def test_metrics_are_on_the_disk_at_once_and_a_torn_line_is_none(tmp_path: Path) -> None:
    run = create_run(settings_of(), examples_of(), tmp_path)
    lines = [{"epoch": epoch, "accuracy": epoch / 3} for epoch in (1, 2, 3)]
    for line in lines:
        run.record(line)
    assert open_run(tmp_path).metrics == run.metrics == lines
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "accur')
    assert open_run(tmp_path).metrics == lines
    again = open_run(tmp_path)
    again.truncate(2)
    again.record({"epoch": 3})
    assert open_run(tmp_path).metrics == [*lines[:2], {"epoch": 3}]


def test_damaged_metrics_are_told(tmp_path: Path) -> None:
    create_run(settings_of(), examples_of(), tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch\n{"epoch": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        open_run(tmp_path)


def run_of(accuracies: list[float]) -> Run:
    metrics = [{"epoch": i + 1, "accuracy": accuracy} for i, accuracy in enumerate(accuracies)]
    return Run(settings_of(), describe(examples_of()), metrics)


def test_best_last_and_last_ten() -> None:
    run = run_of([0.9, *[0.1] * 5, *[0.5] * 9, 0.6])
    assert (run.best_accuracy, run.last_accuracy) == (0.9, 0.6)
    assert run.last10_accuracy == pytest.approx((9 * 0.5 + 0.6) / 10)
    assert "accuracy 60.0%" in repr(run)
    short = run_of([0.2, 0.4])
    assert short.last10_accuracy == pytest.approx(0.3)


def test_without_a_test_set_there_is_no_accuracy() -> None:
    run = Run(settings_of(), describe(examples_of()), [{"epoch": 1}])
    assert run.best_accuracy is run.last_accuracy is run.last10_accuracy is None
    assert "1 epochs" in repr(run)


def test_noise_rates_asked_actual_and_estimated(tmp_path: Path) -> None:
    noisy = add_noise(examples_of(30), "symmetric", rate=0.5, seed=1)
    assert noisy.true_labels is not None
    actual = (noisy.true_labels != noisy.labels).double().mean().item()
    run = create_run(settings_of(), noisy, tmp_path)
    run.record({"epoch": 1, "estimated_noise": 0.7})
    run.record({"epoch": 2, "estimated_noise": 0.6})
    assert run.noise == open_run(tmp_path).noise == (0.5, actual, 0.6)
    assert Run(settings_of(), describe(noisy.without_true_labels()), []).noise == (None, None, None)


def test_an_unfinished_run_says_so_when_asked_to_predict(tmp_path: Path) -> None:
    run = create_run(settings_of(), examples_of(), tmp_path)
    assert not run.finished
    with pytest.raises(UserError, match="is unfinished; `scanmix resume"):
        run.predict(examples_of())


def test_run_toml_says_nothing_that_json_could_not(tmp_path: Path) -> None:
    create_run(settings_of(), examples_of(), tmp_path)
    assert json.dumps(read_toml(tmp_path / "run.toml"))


def test_the_seconds_of_a_run_are_start_epochs_and_evaluation() -> None:
    """Other times are parts of an epoch, and are not counted twice."""
    lines = [
        {
            "epoch": 1,
            "seconds/start": 5.0,
            "seconds/epoch": 2.0,
            "seconds/learn": 1.5,
            "seconds/evaluate": 0.5,
            "seconds/processor": 6.0,
        },
        {"epoch": 2, "seconds/epoch": 3.0, "seconds/learn": 2.5, "seconds/evaluate": 0.25, "seconds/processor": 2.5},
    ]
    run = Run(resolve("cross_entropy", "digits"), describe(examples_of()), lines)
    assert run.seconds == 10.75
    assert run.stage_seconds == {
        "seconds/start": 5.0, "seconds/epoch": 5.0, "seconds/learn": 4.0, "seconds/evaluate": 0.75,
        "seconds/processor": 8.5,
    }  # fmt: skip
    assert Run(run.settings, run.about, []).seconds == 0
