"""Learning through a step of learning: losses at weights that are not those of the network, and their gradients.

A network stays as it is: its weights are a mapping of names to tensors, and its running statistics are copied at every
call, so that a look ahead does not move them. With several processes each computes the whole batch, and synchronized
batch norms rest (`networks.batch_norm.unsynchronized`), since their messages have no second gradient.
Legend: B batch, C classes, D features, K neighbors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vjp

from scanmix.blocks.trust import keep_given

Weights: TypeAlias = dict[str, Tensor]
"""Name -> tensor, of some or all parameters of a network."""


def weights_of(network: nn.Module, within: str = "") -> Weights:
    """Return the parameters that are trained, by name, without a graph; those whose name begins with `within`."""
    return {
        name: weight.detach()
        for name, weight in network.named_parameters()
        if weight.requires_grad and name.startswith(within)
    }


def outputs_at(network: nn.Module, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return what the network gives with these weights in place of those of the same names, in its current mode.

    Shape: (B, ...) -> (B, ...).
    """
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    found: Tensor = functional_call(network, {**statistics, **weights}, (inputs,))
    return found


def gradient(loss: Callable[[Weights], Tensor], weights: Weights) -> tuple[Weights, Tensor]:
    """Return the gradient of a scalar loss by the weights, and the loss; neither has a graph. Shape: -> (), too."""
    found, value = grad_and_value(loss)(weights)
    return {name: part.detach() for name, part in found.items()}, value.detach()


def stepped(weights: Weights, slope: Weights, size: float) -> Weights:
    """Return the weights after a step of gradient descent: w - size * slope."""
    return {name: weight - size * slope[name] for name, weight in weights.items()}


def with_gradient(network: nn.Module, slope: Weights) -> Tensor:
    """Return sum_w <w, slope_w>, whose gradient by each weight of the network is the slope. Shape: -> ()."""
    weights = dict(network.named_parameters())
    return torch.stack([(weights[name] * part).sum() for name, part in slope.items()]).sum()


Pullback: TypeAlias = Callable[[Tensor], Weights]
"""From a weight for each example to the gradient of the weighted sum of their losses."""


def pullback(losses: Callable[[Weights], Tensor], weights: Weights) -> tuple[Tensor, Pullback]:
    """Return the losses at these weights, without a graph, and their pullback. Shape: -> (B,)."""
    pulled: tuple[Tensor, Callable[[Tensor], tuple[Weights]]] = vjp(losses, weights)  # type: ignore[assignment]
    return pulled[0].detach(), lambda shares: pulled[1](shares)[0]


def along(back: Pullback, direction: Weights, losses: Tensor) -> Tensor:
    """Return <direction, grad l_i> for each example.

    The gradient of sum_i u_i l_i along the direction is linear in u, so that its derivative by u has the products of
    all examples: a second backward pass, whatever B is. (Forward differentiation would need one pass, and warns in
    this PyTorch.) Shape: losses (B,) -> (B,).
    """

    def product(shares: Tensor) -> Tensor:
        slope = back(shares)
        return torch.stack([(slope[name] * part).sum() for name, part in direction.items()]).sum()

    found: Tensor = grad(product)(torch.zeros_like(losses))
    return found.detach()


def example_gradients(losses: Callable[[Weights], Tensor], weights: Weights, direction: Weights, size: float) -> Tensor:
    """Return how much the weight of each example in a step of training raises a loss after this step.

    For w' = w - size * grad sum_i e_i l_i(w), it is dL(w') / de_i = -size * <grad L(w'), grad l_i(w)> (Ren et al.,
    ICML 2018, Eq. 12). `direction` is grad L(w'). Shape: losses (B,) -> (B,).
    """
    values, back = pullback(losses, weights)
    return -size * along(back, direction, values)


def drawn_gates(scores: Tensor, always: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return which gates are open, as 0 or 1, and the derivative of each by its score.

    By Gumbel-softmax of two classes, straight through: the derivative is that of the soft gate. A gate is open with
    probability sigmoid(score); the last `always` ones are open whatever their score is, and have no derivative.
    Shape: (L,) -> (L,), (L,).
    """
    uniform = torch.rand(len(scores), generator=generator, device=scores.device).clamp(1e-6, 1 - 1e-6)
    soft = (scores + torch.logit(uniform)).sigmoid()  # the difference of two Gumbel draws is logistic
    fixed = torch.arange(len(scores), device=scores.device) >= len(scores) - always
    return torch.where(fixed, 1.0, (soft > 0.5).to(soft)), torch.where(fixed, 0.0, soft * (1 - soft))


def gap_slope(one: Tensor, other: Tensor) -> Tensor:
    """Return the gradient, by `one`, of the squared differences of means and of standard deviations of its entries.

    Shape: two of one shape -> that shape.
    """

    def gap(entries: Tensor) -> Tensor:
        return (entries.mean() - other.mean()).square() + (entries.std() - other.std()).square()

    found: Tensor = grad(gap)(one)
    return found.detach()


def synthetic_labels(
    features: Tensor, labels: Tensor, k: int, share: float, generator: Generator, trusted: Tensor | None = None
) -> Tensor:
    """Return labels of which a `share` (0..1), chosen at random, are those of a random one of the k nearest others.

    Of the batch, by Euclidean distance (MLNT, Li et al., CVPR 2019, section 3.2). Labels known to be right stay.
    Shape: (B, D), (B,) int64, (B,) bool -> (B,) int64; B of 2 or more.

    Args:
        features: by which neighbors are near.
        labels: of the same examples.
        k: nearest others, of which one gives its label; all others where the batch has fewer.
        share: of the batch, rounded down.
        generator: of the draws, on the device.
        trusted: which labels are known to be right.
    """
    count, device = len(labels), labels.device
    distance = torch.cdist(features, features).fill_diagonal_(float("inf"))
    nearest = distance.topk(min(k, count - 1), largest=False).indices  # (B, K)
    pick = torch.randint(nearest.shape[1], (count, 1), generator=generator, device=device)
    order = torch.rand(count, generator=generator, device=device).argsort()
    replaced = order < int(share * count)  # a random permutation: exactly so many
    found = torch.where(replaced, labels[nearest.gather(1, pick).squeeze(1)], labels)
    return keep_given(found, labels, trusted)
