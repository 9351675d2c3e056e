"""The names a user may build on, and how they are reached."""

import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import scanmix

SOURCE = str(Path(scanmix.__file__).parents[1])
PUBLIC = [
    "load", "add_noise", "train", "resume", "open_run", "audit_data", "METHODS", "Examples", "ScanMixClassifier",
    "__version__",
]  # fmt: skip


def python(code: str) -> None:
    code = f"import sys; sys.path.insert(0, {SOURCE!r}); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_these() -> None:
    assert sorted(scanmix.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(scanmix))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(scanmix, name) is not None


def test_the_methods_of_the_ablation_and_the_theory_are_there() -> None:
    assert set(scanmix.METHODS) >= {
        "cross_entropy", "mixup", "dividemix", "scan", "scan_dividemix", "scanmix", "exact_em",
    }  # fmt: skip


def test_importing_scanmix_does_not_import_torch() -> None:
    python("import scanmix; dir(scanmix); scanmix.__version__; assert 'torch' not in sys.modules")


def test_train_is_the_function_whatever_was_imported_first() -> None:
    python(
        "import scanmix.training.loop; import scanmix; assert type(scanmix.train).__name__ == 'function', scanmix.train"
    )


def test_train_is_a_function_here_too() -> None:
    assert isinstance(scanmix.train, FunctionType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        scanmix.tarin  # noqa: B018  # asking is the test
