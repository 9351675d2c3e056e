"""Settings: strict, every problem told at once, and the same after a trip through TOML."""

import math
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from pydantic.dataclasses import dataclass

from scanmix import config
from scanmix.config import STRICT, Duration, UserError, flatten
from scanmix.methods.scan import Scan
from scanmix.pretrain.moco import MoCo


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimCLR:
    lr: float = Field(default=0.4, gt=0, le=1)
    temperature: float = Field(default=0.5, gt=0)
    epochs: int = Field(default=500, ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Clustering:
    entropy_weight: float = 2.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Method:
    warmup: Duration = 10
    clean_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    divider: Literal["gmm", "beta"] = "gmm"
    flip: bool = True
    momentum: float | None = None
    name: str = "method"
    widths: tuple[int, ...] = (16, 32, 64)
    mapping: dict[int, int] = Field(default_factory=dict)
    pretrain: SimCLR = SimCLR(epochs=60, temperature=0.2)
    clustering: Clustering | None = None


def problem(values: dict[str, object], prefix: str = "") -> str:
    with pytest.raises(UserError) as caught:
        config.build(Method, values, "recipe x", prefix)
    return str(caught.value)


# --- build and dump ---


def test_an_empty_table_gives_the_defaults() -> None:
    assert config.build(Method, {}, "nowhere") == Method()


def test_a_nested_table_is_laid_on_the_parents_default() -> None:
    made = config.build(Method, {"pretrain": {"lr": 0.1}}, "nowhere")
    assert made.pretrain == SimCLR(lr=0.1, epochs=60, temperature=0.2)


def test_an_optional_nested_table_starts_from_its_class() -> None:
    assert config.build(Method, {"clustering": {}}, "nowhere").clustering == Clustering()


def test_values_may_be_settings_already() -> None:
    pretrain = SimCLR(epochs=3)
    assert config.build(Method, {"pretrain": pretrain}, "nowhere").pretrain == pretrain


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    made = config.build(Method, {"widths": [8, 16], "clean_threshold": 1, "mapping": {"9": 1}}, "nowhere")
    assert made.widths == (8, 16)
    assert isinstance(made.clean_threshold, float)
    assert made.mapping == {9: 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pretrain": {"lr": 3.0}}, "recipe x: pretrain.lr = 3.0: a number above 0 and at most 1 is expected"),
        ({"pretrain": {"epochs": 0}}, "recipe x: pretrain.epochs = 0: a whole number at least 1 is expected"),
        ({"clean_threshold": -1}, "recipe x: clean_threshold = -1: a number at least 0 and at most 1 is expected"),
        ({"divider": "gnm"}, "recipe x: divider = 'gnm': one of 'gmm', 'beta' is expected"),
        ({"flip": "yes"}, "recipe x: flip = 'yes': true or false is expected"),
        ({"momentum": True}, "recipe x: momentum = True: a number is expected"),
        ({"pretrain": {"epochs": 2.0}}, "recipe x: pretrain.epochs = 2.0: a whole number at least 1 is expected"),
        ({"name": 3}, "recipe x: name = 3: a text is expected"),
        ({"pretrain": 3}, "recipe x: pretrain = 3: a table of settings is expected"),
        ({"widths": [8, "x"]}, "recipe x: widths.1 = 'x': Input should be a valid integer"),
        (
            {"warmup": "10 apples"},
            "recipe x: warmup = '10 apples': write a number of epochs, "
            '"10 epochs", "400 steps" or "5%" of all epochs',
        ),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(values: dict[str, object], message: str) -> None:
    assert problem(values) == message


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"clean_treshold": 0.6}, "unknown key 'clean_treshold'; did you mean 'clean_threshold'?"),
        ({"clean-threshold": 0.6}, "unknown key 'clean-threshold'; did you mean 'clean_threshold'?"),
        ({"lr": 0.1}, "unknown key 'lr'; did you mean 'pretrain.lr'?"),
        ({"entropy_wieght": 0.1}, "unknown key 'entropy_wieght'; did you mean 'clustering.entropy_weight'?"),
        ({"pretrain": {"epohcs": 1}}, "unknown key 'pretrain.epohcs'; did you mean 'pretrain.epochs'?"),
        ({"pretrain": {"warmup": 1}}, "unknown key 'pretrain.warmup'; did you mean 'warmup'?"),
        ({"pretrian": {"lr": 1}}, "unknown key 'pretrian'; did you mean 'pretrain'?"),
        ({"zzz": 1}, "unknown key 'zzz'; known keys: warmup, clean_threshold, "),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest_valid_one(values: dict[str, object], hint: str) -> None:
    assert problem(values).startswith(f"recipe x: {hint}")


def test_every_problem_is_told_at_once_with_the_prefix() -> None:
    message = problem({"lr": 0.1, "flip": 1, "pretrain": {"lr": 0, "epohcs": 3}}, prefix="settings.")
    first, *rest = message.splitlines()
    assert first == "recipe x: 4 problems"
    assert sorted(rest) == [
        "  settings.flip = 1: true or false is expected",
        "  settings.pretrain.lr = 0: a number above 0 and at most 1 is expected",
        "  unknown key 'settings.lr'; did you mean 'settings.pretrain.lr'?",
        "  unknown key 'settings.pretrain.epohcs'; did you mean 'settings.pretrain.epochs'?",
    ]


def test_a_missing_value_is_told() -> None:
    @dataclass(frozen=True, kw_only=True, config=STRICT)
    class Needy:
        source: str

    with pytest.raises(UserError, match="--set: source is missing: a text is needed"):
        config.build(Needy, {}, "--set")


methods = st.builds(
    Method,
    warmup=st.one_of(st.integers(0, 99), st.sampled_from(["10 epochs", "1 step", "2.5%"])),
    clean_threshold=st.floats(0, 1),
    momentum=st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])),
    widths=st.lists(st.integers(1, 512)).map(tuple),
    mapping=st.dictionaries(st.integers(0, 9), st.integers(0, 9)),
    clustering=st.one_of(st.none(), st.builds(Clustering, entropy_weight=st.floats(0, 9))),
)


@given(methods)
def test_dump_and_build_are_inverse_through_toml(method: Method) -> None:
    table = tomllib.loads(tomli_w.dumps(config.dump(method)))
    assert config.build(Method, table, "a test") == method


def test_dump_leaves_none_out_and_refuses_it_where_it_would_come_back_as_something_else() -> None:
    assert "momentum" not in config.dump(Method())

    @dataclass(frozen=True, kw_only=True, config=STRICT)
    class Odd:
        momentum: float | None = 0.9

    with pytest.raises(UserError, match=r"Odd\.momentum cannot be None"):
        config.dump(Odd(momentum=None))


def test_dotted_keys_reach_nested_tables() -> None:
    keys = list(config.dotted_keys(Method))
    assert {"warmup", "pretrain", "pretrain.lr", "clustering.entropy_weight"} <= set(keys)
    assert len(keys) == len(set(keys)) == 14


# --- tables ---


def test_merge_joins_tables_and_changes_neither() -> None:
    base = {"a": {"x": 1, "y": {"z": 2}}, "b": [1], "c": {"x": 1}}
    over = {"a": {"y": {"w": 3}}, "b": [2], "c": 4, "d": {"e": 5}}
    merged = config.merge(base, over)
    assert merged == {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "b": [2], "c": 4, "d": {"e": 5}}
    merged["a"]["x"] = merged["d"]["e"] = 99
    assert base == {"a": {"x": 1, "y": {"z": 2}}, "b": [1], "c": {"x": 1}}
    assert over["d"] == {"e": 5}


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("lr=0.1", {"lr": 0.1}),
        ("pretrain.lr = 1e-3", {"pretrain": {"lr": 0.001}}),
        ("a.b.c=true", {"a": {"b": {"c": True}}}),
        ("widths=[8, 16]", {"widths": [8, 16]}),
        ("warmup=10 epochs", {"warmup": "10 epochs"}),
        ("warmup=5%", {"warmup": "5%"}),
        ('name="3"', {"name": "3"}),
        ("noise=symmetric:0.8", {"noise": "symmetric:0.8"}),
        ("name=a=b", {"name": "a=b"}),
        ("name=", {"name": ""}),
        ("name=2026-01-01", {"name": "2026-01-01"}),
        ("name=1\nother = 2", {"name": "1\nother = 2"}),
    ],
)
def test_parse_assignment(text: str, table: dict[str, object]) -> None:
    assert config.parse_assignment(text) == table


@pytest.mark.parametrize("text", ["lr", "=3", "a..b=3", "a.=3", "a b=3", ""])
def test_parse_assignment_tells_what_to_write(text: str) -> None:
    with pytest.raises(UserError, match="write key=value"):
        config.parse_assignment(text)


def test_read_toml_tells_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("lr = = 3")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    for name, words in {"none": "no such file", "bad": "not valid TOML", "bytes": "not a text file"}.items():
        with pytest.raises(UserError, match=rf"{name}\.toml: {words}"):
            config.read_toml(tmp_path / f"{name}.toml")
    with pytest.raises(UserError, match="cannot be read"):
        config.read_toml(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 20_000, "a = " + "9" * 6_000, "a = 1" + "9" * 6_000 + "-01-01", ".".join("a" * 300) + " = 1"],
)
def test_toml_that_python_itself_stumbles_over_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UserError, match=r"x\.toml: not valid TOML"):
        config.read_toml(tmp_path / "x.toml")


def test_a_pipe_and_a_device_are_no_toml(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.toml")
    for path in (tmp_path / "x.toml", "/dev/zero"):
        with pytest.raises(UserError, match="cannot be read"):
            config.read_toml(path)


@pytest.mark.parametrize("value", ["9" * 5_000, "[" * 5_000, "[" * 100 + "]" * 100, "{a = " * 100 + "1" + "}" * 100])
def test_an_assignment_of_something_endless_is_text(value: str) -> None:
    assert config.parse_assignment(f"epochs={value}") == {"epochs": value}
    told = problem({"pretrain": config.parse_assignment(f"epochs={value}")})
    assert "pretrain.epochs = " in told and "a whole number at least 1 is expected" in told and len(told) < 200


def test_an_assignment_of_many_parts_is_refused() -> None:
    with pytest.raises(UserError, match="write key=value") as told:
        config.parse_assignment(".".join("a" * 5_000) + "=1")
    assert len(str(told.value)) < 200


# --- values of wrong types ---


@pytest.mark.parametrize("values", [3, "x", None, [1], True, 0.5])
def test_what_is_no_table_of_settings_is_told(values: Any) -> None:
    with pytest.raises(UserError, match=r"recipe x: .*a table of settings is expected"):
        config.build(Method, values, "recipe x")
    with pytest.raises(UserError, match=r"recipe x: network = .*: a table of settings is expected"):
        config.build(Method, values, "recipe x", "network.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"momentum": math.inf}, "recipe x: momentum = inf: a finite number is expected"),
        ({"momentum": -math.inf}, "momentum = -inf: a finite number"),
        ({"momentum": math.nan}, "momentum = nan: a finite number"),
        ({"pretrain": {"temperature": math.inf}}, "pretrain.temperature = inf: a finite number"),
        (
            {"widths": [16, 10**4000]},
            "widths = a number of more than 60 digits: a number of at most 9223372036854775807",
        ),
        ({"widths": [16, 2**63]}, "widths = 9223372036854775808: a number of at most"),
        ({"name": "\udcff"}, "a text in UTF-8 is expected"),
        ({"warmup": "9" * 5000 + " epochs"}, "write a number of epochs"),
        ({"name": "x" * 5000, "flip": "x" * 5000}, "true or false is expected"),
    ],
)
def test_a_value_that_no_setting_can_have_is_told_by_its_key(values: dict[str, object], message: str) -> None:
    told = problem(values)
    assert message in told and len(told) < 300


def test_settings_that_hold_themselves_are_told() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "nested too deeply" in problem({"widths": endless})
    assert "nested too deeply" in problem({"mapping": {"a": endless}})


def test_arrays_are_lists() -> None:
    assert config.build(Method, {"widths": np.array([8, 16]), "momentum": np.float32(0.5)}, "x").widths == (8, 16)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(10**400),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["kind", "epochs", "lr"]), inner),
    max_leaves=6,
)
KEYS = ["warmup", "clean_threshold", "divider", "momentum", "name", "widths", "mapping", "pretrain", "clustering", "x"]


@given(st.dictionaries(st.sampled_from(KEYS), anything))
def test_any_values_are_settings_or_one_error(values: dict[str, object]) -> None:
    try:
        assert isinstance(config.build(Method, values, "x"), Method)
    except UserError as error:
        assert str(error).startswith("x: ")


# --- arguments ---


@pytest.mark.parametrize("value", ["a", 1.0, None, True, [1], -1, 4, 10**400, np.array([1, 2])])
def test_what_is_no_whole_number_within_bounds_is_told(value: object) -> None:
    with pytest.raises(UserError, match="seed must be a whole number from 0 to 3, not "):
        config.whole_number("seed", value, most=3)


def test_whole_numbers_of_any_kind() -> None:
    assert config.whole_number("seed", np.int64(3)) == 3 and type(config.whole_number("seed", np.int64(3))) is int
    config.check_type("examples", 3, int, "a number")
    with pytest.raises(UserError, match=r"examples must be a number, not \(1, 2\)"):
        config.check_type("examples", (1, 2), int, "a number")


# --- names ---


def test_nearest() -> None:
    names = ["scanmix", "dividemix", "cross_entropy"]
    assert config.nearest("scanmx", names) == "scanmix"
    assert config.nearest("Cross-Entropy", names) == "cross_entropy"
    assert config.nearest("qqqq", names) is None
    assert config.nearest("x", []) is None


def test_unknown_name_suggests_and_lists() -> None:
    error = config.unknown_name("method", "scanmx", {"scanmix": 1, "dividemix": 2})
    assert isinstance(error, UserError)
    assert str(error) == "unknown method 'scanmx'; did you mean 'scanmix'? Known: dividemix, scanmix"
    assert str(config.unknown_name("method", "q", [])) == "unknown method 'q'; Known: none"


# --- durations ---


@pytest.mark.parametrize(
    ("duration", "epochs"),
    [
        (0, 0), (7, 7), ("0 epochs", 0), ("1 epoch", 1), ("10 epochs", 10), ("10epochs", 10),
        ("0 steps", 0), ("1 step", 1), ("11 steps", 1), ("12 steps", 2), ("400 steps", 37),
        ("0%", 0), ("0.01%", 1), ("5%", 50), ("5.01 %", 51), ("1.1%", 11), ("100%", 1000),
    ],
)  # fmt: skip
def test_epochs_of(duration: Duration, epochs: int) -> None:
    assert config.epochs_of(duration, steps_per_epoch=11, total_epochs=1000) == epochs


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_steps_are_never_cut_short_and_never_a_whole_epoch_too_long(steps: int, steps_per_epoch: int) -> None:
    epochs = config.epochs_of(f"{steps} steps", steps_per_epoch, total_epochs=1)
    assert epochs * steps_per_epoch >= steps > (epochs - 1) * steps_per_epoch or steps == epochs == 0


@pytest.mark.parametrize("duration", [-1, True, 1.5, "10", "ten epochs", "-5%", "101%", "3 days", "", math.inf, None])
def test_what_is_no_duration(duration: object) -> None:
    with pytest.raises(UserError, match="duration: write a number of epochs"):
        config.epochs_of(duration, 1, 1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"warmup = .*: write a number of epochs"):
        config.build(Method, {"warmup": duration}, "a test")


# --- recipes ---


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    base = 'method = "scanmix"\n[settings]\nwarmup = "400 steps"\n[settings.pretrain]\nlr = 0.1\n'
    child = 'extends = "digits/any/scanmix"\noracle = true\n[settings.pretrain]\nepochs = 3\n'
    files = {
        "digits/any/scanmix": base,
        "digits/sym90/scanmix": child,
        "digits/sym95/scanmix": 'extends = "digits/sym90/scanmix"\n',
        "bad/section": "[setings]\nlr = 1\n",
        "bad/kind": 'oracle = "yes"\n',
        "bad/table": "draw = 3\n",
        "bad/parent": 'extends = "digits/any/scanmx"\n',
    }
    for name, text in files.items():
        path = tmp_path / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_recipe_by_name_and_by_path(recipes: Path) -> None:
    recipe = {"method": "scanmix", "settings": {"warmup": "400 steps", "pretrain": {"lr": 0.1}}}
    assert config.load_recipe("digits/any/scanmix", recipes) == recipe
    assert config.load_recipe(recipes / "digits/any/scanmix.toml") == recipe


def test_a_recipe_is_laid_on_what_it_extends(recipes: Path) -> None:
    assert config.load_recipe("digits/sym90/scanmix", recipes) == {
        "method": "scanmix",
        "oracle": True,
        "settings": {"warmup": "400 steps", "pretrain": {"lr": 0.1, "epochs": 3}},
    }


def test_a_recipe_may_extend_a_file_beside_it(recipes: Path) -> None:
    mine = recipes / "digits" / "any" / "mine.toml"
    mine.write_text('extends = "scanmix.toml"\noracle = true\n')
    assert config.load_recipe(mine)["oracle"] is True
    assert config.load_recipe(mine)["method"] == "scanmix"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits/any/scanmx", "unknown recipe 'digits/any/scanmx'; did you mean 'digits/any/scanmix'?"),
        ("digits/sym95/scanmix", "only one level is allowed"),
        ("bad/section", "unknown section 'setings'; did you mean 'settings'?"),
        ("bad/kind", "oracle = 'yes': true or false is expected"),
        ("bad/table", r"draw = 3: a table, \[draw\] is expected"),
        ("bad/parent", "unknown recipe 'digits/any/scanmx'; did you mean"),
        ("mine.toml", "mine.toml: no such file"),
    ],
)
def test_a_bad_recipe_is_told(recipes: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        config.load_recipe(name, recipes)


def test_recipe_names(recipes: Path) -> None:
    assert "digits/sym90/scanmix" in config.recipe_names(recipes)
    assert config.recipe_names(recipes / "nowhere") == []


@pytest.mark.parametrize("name", config.recipe_names())
def test_shipped_recipes_read_well(name: str) -> None:
    assert "method" in config.load_recipe(name)


def test_flatten_puts_values_under_dotted_keys() -> None:
    table = {"a": {"b": 1, "c": {"d": [2]}}, "e": "f", "g": {}}
    assert flatten(table) == {"a.b": 1, "a.c.d": [2], "e": "f"}


def test_a_table_of_another_kind_replaces_and_of_the_same_is_joined() -> None:
    base = {"pretrain": {"epochs": 60, "symmetric": True}, "epochs": 3}
    assert config.overlay(base, {"pretrain": {"epochs": 5}}) == {
        "pretrain": {"epochs": 5, "symmetric": True}, "epochs": 3,
    }  # fmt: skip
    other = {"pretrain": {"kind": "moco", "epochs": 5}}
    assert config.overlay(base, other) == {"pretrain": {"kind": "moco", "epochs": 5}, "epochs": 3}
    assert config.overlay(other, {"pretrain": {"kind": "moco", "splits": 2}})["pretrain"] == {
        "kind": "moco", "epochs": 5, "splits": 2,
    }  # fmt: skip


def test_a_method_pretrains_by_either_kind() -> None:
    asked = {"pretrain": {"kind": "moco", "queue_size": 512}}
    made = config.build(Scan, asked, "here")
    assert made.pretrain == MoCo(kind="moco", queue_size=512)
    assert config.build(Scan, config.dump(made), "here") == made
    assert config.build(Scan, {"pretrain": {"symmetric": True}}, "here").pretrain.epochs == 500


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "moco", "splits": 0}, "settings.pretrain.splits = 0: a whole number at least 1 is expected"),
        ({"kind": "mocco"}, "settings.pretrain.kind = 'mocco': one of 'moco' is expected"),
        ({"kind": "moco", "queue": 5}, "unknown key 'settings.pretrain.queue'; did you mean"),
        ({"queue_size": 5}, "unknown key 'settings.pretrain.queue_size'; settings.pretrain.kind = 'moco' has one"),
        ({"epochs": -1}, "settings.pretrain.epochs = -1: a whole number at least 0 is expected"),
    ],
)
def test_what_is_wrong_with_either_kind_is_told(table: dict[str, object], message: str) -> None:
    with pytest.raises(config.UserError, match=re.escape(message)):
        config.build(Scan, {"pretrain": table}, "here", prefix="settings.")
