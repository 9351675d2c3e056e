"""Encoders in ONNX files: what they compute, what they are told and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scanmix.config import UserError
from scanmix.features import FrozenEncoder, Preparation, open_encoder
from tests.encoders import MEAN, METADATA, STD, WIDTH, slow_features, write_encoder

PICTURES = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8))


def opened(text: str) -> FrozenEncoder:
    encoder = open_encoder(text)
    assert isinstance(encoder, FrozenEncoder)
    return encoder


def features(text: str) -> np.ndarray:
    found: np.ndarray = opened(text).encode(PICTURES).numpy()
    return found


def test_features_are_those_of_the_graph(tmp_path: Path) -> None:
    found = features(f"onnx:{write_encoder(tmp_path / 'a.onnx')}")
    assert found.shape == (5, WIDTH) and found.dtype == np.float32
    np.testing.assert_allclose(found, slow_features(PICTURES.numpy()), rtol=1e-3, atol=1e-4)


def test_a_batch_of_a_fixed_size_is_filled_up(tmp_path: Path) -> None:
    free, fixed = (write_encoder(tmp_path / f"{batch}.onnx", batch=batch) for batch in ("B", 2))
    np.testing.assert_allclose(features(f"onnx:{fixed}"), features(f"onnx:{free}"), rtol=1e-5, atol=1e-6)


def test_channels_may_stand_last(tmp_path: Path) -> None:
    first, last = (write_encoder(tmp_path / f"{value}.onnx", channels_last=value) for value in (False, True))
    np.testing.assert_allclose(features(f"onnx:{last}"), features(f"onnx:{first}"), rtol=1e-5, atol=1e-6)


def test_maps_are_averaged_where_there_are_no_vectors(tmp_path: Path) -> None:
    whole, maps = write_encoder(tmp_path / "a.onnx"), write_encoder(tmp_path / "b.onnx", pooled=False)
    wanted = features(f"onnx:{whole}")
    np.testing.assert_allclose(features(f"onnx:{maps}"), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features(f"onnx:{whole}:output=maps"), wanted, rtol=1e-4, atol=1e-5)


def test_an_encoder_of_gray_pictures_gets_gray_ones(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "a.onnx", channels=1, metadata={"mean": "0.5", "std": "0.25"})
    assert opened(f"onnx:{path}").preparation == Preparation((16, 16), (0.5,), (0.25,))
    gray = Preparation((16, 16), (0.5,), (0.25,)).resized(PICTURES)
    np.testing.assert_allclose(features(f"onnx:{path}"), opened(f"onnx:{path}").encode(gray).numpy(), atol=1e-6)


def test_how_pictures_are_prepared_is_read_from_the_file_or_given(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "a.onnx", metadata={**METADATA, "crop": "0.8", "license": "cc0-1.0"})
    encoder = opened(f"onnx:{path}")
    assert encoder.preparation == Preparation((16, 16), MEAN, STD, 0.8) and encoder.license == "cc0-1.0"
    told = opened(f"onnx:{path}:mean=0.5:std=0.1,0.2,0.3:interpolation=bilinear:crop=1")
    assert told.preparation == Preparation((16, 16), (0.5,) * 3, (0.1, 0.2, 0.3), 1.0, "bilinear")
    free = write_encoder(tmp_path / "b.onnx", size="side", metadata={"mean": "[0.4, 0.5, 0.6]", "std": "0.2"})
    assert opened(f"onnx:{free}:size=12").preparation == Preparation((12, 12), MEAN, (0.2,) * 3)
    assert opened(f"onnx:{free}:size=12,20").preparation == Preparation((12, 20), MEAN, (0.2,) * 3)


def test_the_hash_is_of_the_whole_content(tmp_path: Path) -> None:
    one, copy, other = (write_encoder(tmp_path / f"{name}.onnx", seed=seed) for name, seed in enumerate((0, 0, 1)))
    digests = [opened(f"onnx:{path}").digest for path in (one, copy, other)]
    assert digests[0] == digests[1] != digests[2]


def test_tensors_in_a_file_beside_it_are_part_of_the_hash(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "a.onnx", external=True)
    beside = tmp_path / "a.onnx.data"
    before = opened(f"onnx:{path}").digest
    content = bytearray(beside.read_bytes())
    content[5] ^= 1
    beside.write_bytes(content)
    assert opened(f"onnx:{path}").digest != before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("sise=16", "did you mean 'size'"),
        ("size=20", "pictures of 16x16 pixels; size=20 does not fit"),
        ("mean=0.1,0.2", r"mean=0.1,0.2: 1 or 3 number\(s\)"),
        ("mean=a", "mean=a: 1 or 3"),
        ("std=0", "std above 0"),
        ("crop=1.5", "crop must be above 0 and at most 1"),
        ("crop=nan", "crop=nan"),
        ("interpolation=lanczos", "unknown interpolation 'lanczos'"),
        ("output=vector", "did you mean 'vectors'"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: str, sentence: str) -> None:
    path = write_encoder(tmp_path / "a.onnx")
    with pytest.raises(UserError, match=sentence):
        open_encoder(f"onnx:{path}:{options}")


def test_what_a_file_does_not_say_must_be_given(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "a.onnx", metadata={})
    with pytest.raises(UserError, match=r"does not say its mean and std.*mean=0.485,0.456,0.406:std=0.229"):
        open_encoder(f"onnx:{path}")
    with pytest.raises(UserError, match="does not say its std:"):
        open_encoder(f"onnx:{path}:mean=0.5")
    free = write_encoder(tmp_path / "b.onnx", size="side")
    with pytest.raises(UserError, match=r"pictures of any size; .*:size=224"):
        open_encoder(f"onnx:{free}")


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nix.onnx: no such file"):
        open_encoder(f"onnx:{tmp_path / 'nix.onnx'}")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(UserError, match=r"text.onnx is damaged and cannot be read"):
        open_encoder(f"onnx:{tmp_path / 'text.onnx'}")
    import onnx
    from onnx import TensorProto, helper

    entries = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", 4])]
    outputs = [helper.make_tensor_value_info("same", TensorProto.INT64, ["B", 4])]
    graph = helper.make_graph([helper.make_node("Identity", ["ids"], ["same"])], "texts", entries, outputs)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "ids.onnx"
    )
    with pytest.raises(UserError, match=r"no encoder of pictures: it takes tensor\(int64\) \['B', 4\]"):
        open_encoder(f"onnx:{tmp_path / 'ids.onnx'}")
