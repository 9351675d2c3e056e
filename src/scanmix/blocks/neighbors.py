"""Nearest neighbors in feature space, on any device: exact up to a number of examples, approximate beyond.

Legend: N examples, D features, K neighbors, C classes, B rows (queries), M columns (candidates), P matrix products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.blocks.trust import keep_given
from scanmix.config import UserError
from scanmix.progress import Tick

CHUNK = 512
"""Most rows that are compared at once."""
COMPARED = 1 << 25
"""Most similarities that are held at once, in float32: 128 MB, whatever N is."""
WIDTH = 2048
"""Most columns of one matrix product, so that its result is still in the processor's cache when it is read."""
# revisit: time WIDTH and CHUNK (speed/, row "neighbors") on each new kind of processor.
EXACT_UP_TO = 200_000
"""Most examples whose neighbors are exact by default: the time of exact search grows with N x N."""
PROBES = 24
"""Cells in which approximate neighbors are searched: those nearest to the cell of an example, and this cell itself."""
LLOYD_STEPS = 8
"""Iterations of k-means that place the centers of the cells."""
SAMPLED = 64
"""Examples for each cell in the sample that k-means is run on."""


def nearest_neighbors(features: Tensor, k: int, exact_up_to: int = EXACT_UP_TO, tick: Tick | None = None) -> Tensor:
    """Return the k nearest others of each example, nearest first, by Euclidean distance of L2-normalized rows.

    On the unit sphere this is the order of falling inner product (ScanMix section 4.2, K = 20). Of equally near ones
    the smaller position comes first. An example is never its own neighbor; its duplicates may be. Where N is above
    `exact_up_to`, some neighbors may not be the nearest (`near_in_cells`). Memory grows with N x (D + K).
    `tick` is called with the number of examples whose neighbors are found.
    Shape: (N, D) finite -> (N, k) int64.

    Raises:
        UserError: k is below 1, or there are not more than k examples.
    """
    count = len(features)
    if not 1 <= k < count:
        raise UserError(f"{k} nearest neighbors of {count} examples were asked for; ask for 1 to {count - 1}")
    unit = F.normalize(features.float(), dim=1)
    if count > exact_up_to:
        return near_in_cells(unit, k, tick)
    everything = torch.arange(count, device=unit.device)
    found = torch.empty(count, k, dtype=torch.int64, device=unit.device)
    search(unit, everything, everything, found, tick)
    return found


def search(unit: Tensor, asking: Tensor, among: Tensor, found: Tensor, tick: Tick | None = None) -> None:
    """Find the k nearest neighbors of the examples at `asking` among those at `among`; write their rows of `found`.

    Rows are taken in blocks. For each block the M columns are split over P matrix products, which are small enough
    for the cache: product p has the columns p, p + P, p + 2P and so on. The P columns that stand at one position in
    all products form a group of neighboring columns, and the largest similarity of each group is kept while the
    products are made. The k largest similarities of a row lie in the k groups with the largest maxima, so only
    those groups are searched. For M = 6, P = 2, k = 1 and one row:

        column                       0   1   2   3   4   5
        similarity                  .1  .7  .3  .2  .9  .4
        product 0, columns 0 2 4    .1      .3      .9
        product 1, columns 1 3 5        .7      .2      .4
        maximum of the group           .7      .3      .9     the third group wins: of columns 4 and 5, 4 is nearest

    In fact k + 1 are searched, because one of them may be the example itself.
    Shape: unit rows (N, D), rising positions asking (A,) and among (M,) with M > k, and found (N, k) int64.
    """
    k, products = found.shape[1], -(-len(among) // WIDTH)
    columns = [unit[among[first::products]] for first in range(products)]
    groups = len(columns[0])
    height = min(CHUNK, max(1, COMPARED // (products * groups)), len(asking))
    similarity = torch.full((products, height, groups), float("-inf"), device=unit.device)
    maxima = torch.empty(height, groups, device=unit.device)
    done = 0
    for rows in asking.split(height):
        block, largest, queries = similarity[:, : len(rows)], maxima[: len(rows)], unit[rows]
        for number, (part, others) in enumerate(zip(block, columns, strict=True)):
            _multiply(queries, others, part[:, : len(others)])
            torch.maximum(largest if number else part, part, out=largest)
        found[rows] = among[_nearest(block, largest, rows, among, k)]
        done += len(rows)
        if tick is not None:
            tick(done, len(asking), "")


def _multiply(queries: Tensor, others: Tensor, out: Tensor) -> None:
    """Write queries @ others.T into `out`. Shape: (B, D), (M, D) -> (B, M).

    On the CPU it is computed as a 1x1 convolution of 16 images, the fewest for which PyTorch calls oneDNN. On AMD
    processors with AVX-512 oneDNN's convolution was faster than PyTorch's matrix product: 230 against 105 GFLOP/s.
    """
    # revisit: time both ways with each new version of PyTorch and on Intel and ARM; use `torch.mm` where it is as fast.
    if out.device.type != "cpu":
        torch.mm(queries, others.T, out=out)
        return
    images = F.pad(queries, (0, 0, 0, -len(queries) % 16)).view(16, 1, -1, queries.shape[1]).permute(0, 3, 1, 2)
    found = F.conv2d(images, others.view(*others.shape, 1, 1)).permute(0, 2, 3, 1)
    out.copy_(found.reshape(-1, len(others))[: len(out)])


def _nearest(similarity: Tensor, largest: Tensor, rows: Tensor, among: Tensor, k: int) -> Tensor:
    """Return the columns of the k nearest others of each row, nearest first.

    Shape: similarities (P, B, M / P), maxima of the groups (B, M / P), rows (B,), among (M,) -> (B, k).
    """
    products = len(similarity)
    chosen = _top(largest, min(k + 1, largest.shape[1]))  # groups; one more, as the example itself may be among them
    inside = similarity.gather(2, chosen.repeat(products, 1, 1)).permute(1, 2, 0).flatten(1)  # `expand` takes longer
    columns = (chosen.unsqueeze(2) * products + torch.arange(products, device=rows.device)).flatten(1)
    position = _top(inside, k + 1)
    order = inside.gather(1, position).sort(dim=1, descending=True, stable=True).indices
    columns = columns.gather(1, position.gather(1, order))
    is_other = among[columns] != rows.unsqueeze(1)
    # Where k + 1 others are as near as the example is to itself, it is not among them: drop the last of them instead.
    is_other[:, -1] &= ~is_other.all(1)
    return columns[is_other].view(-1, k)


def _top(values: Tensor, k: int) -> Tensor:
    """Return the positions of the k largest values of each row in rising order; of equal ones the smaller positions.

    Costs a device synchronization, because `topk` alone may take any of equal values. Shape: (B, M) -> (B, k).
    """
    if k == values.shape[1]:
        return torch.arange(k, device=values.device).expand(len(values), -1)
    largest = values.topk(k + 1, 1)
    positions = largest.indices[:, :k]
    tied = largest.values[:, k - 1] == largest.values[:, k]
    if bool(tied.any()):
        positions[tied] = values[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return positions.sort(1).values


def near_in_cells(unit: Tensor, k: int, tick: Tick | None = None) -> Tensor:
    """Return approximate nearest neighbors, searched in the `PROBES` cells nearest to an example's own (inverted file).

    K-means divides the examples into about sqrt(N) cells. The examples of one cell share their candidates, all members
    of the nearest cells, so `search` compares them in matrix products. A neighbor in a cell further away is missed.
    Small cells are made up for by more of them, until they hold more than k examples. Time grows with N^1.5 and memory
    with N. The sample for k-means has a seed of its own, so equal rows always get equal neighbors.
    Shape: (N, D) unit rows -> (N, k) int64.
    """
    centers = _centers(unit, max(1, round(len(unit) ** 0.5)))
    cell = _cells(unit, centers)
    members = cell.argsort(stable=True).split(cell.bincount(minlength=len(centers)).tolist())
    sizes = torch.tensor([len(inside) for inside in members], device=unit.device)
    near = (centers @ centers.T).argsort(dim=1, descending=True)
    enough = (sizes[near].cumsum(1) <= k).sum(1) + 1  # the nearest cells that together hold more than k examples
    found = torch.empty(len(unit), k, dtype=torch.int64, device=unit.device)
    done = 0
    for inside, cells, least in zip(members, near.tolist(), enough.tolist(), strict=True):
        if len(inside):
            among = torch.cat([members[other] for other in cells[: max(PROBES, least)]]).sort().values
            search(unit, inside, among, found)
            done += len(inside)
            if tick is not None:
                tick(done, len(unit), "")
    return found


def _cells(unit: Tensor, centers: Tensor) -> Tensor:
    """Return the number of the nearest center of each row. Shape: (N, D), (cells, D) -> (N,) int64."""
    # One tensor for all results: small ones allocated between large temporary ones kept gigabytes of freed memory.
    cell = torch.empty(len(unit), dtype=torch.int64, device=unit.device)
    for rows, part in zip(unit.split(4096), cell.split(4096), strict=True):
        torch.argmax(rows @ centers.T, 1, out=part)
    return cell


def _centers(unit: Tensor, count: int) -> Tensor:
    """Return the unit centers of `count` cells, by k-means on a sample. Shape: (N, D) -> (count, D)."""
    generator = Generator(unit.device).manual_seed(0)
    sample = unit[torch.randperm(len(unit), generator=generator, device=unit.device)[: SAMPLED * count]]
    centers = sample[:count].clone()
    for _ in range(LLOYD_STEPS):
        sums = torch.zeros_like(centers).index_add_(0, _cells(sample, centers), sample)
        # A center to which no example is nearest stays where it is.
        centers = torch.where((sums != 0).any(1, keepdim=True), F.normalize(sums, dim=1), centers)
    return centers


def agreeing(candidates: Tensor, labels: Tensor) -> Tensor:
    """Return the E-step of ScanMix (Algorithm 1): q(z_ji) = 1 where neighbor j has the label of i.

    Shape: (N, K), (N,) -> (N, K) bool.
    """
    return labels[candidates] == labels.unsqueeze(1)


def draw_neighbor(candidates: Tensor, allowed: Tensor, generator: Generator) -> Tensor:
    """Draw one of the allowed candidates of each example, uniformly; one of all candidates where none is allowed.

    Memory grows with N x K. Shape: (N, K), (N, K) bool -> (N,) int64.
    """
    allowed = allowed | ~allowed.any(1, keepdim=True)
    scores = torch.rand(candidates.shape, generator=generator, device=generator.device).to(candidates.device)
    chosen = scores.masked_fill(~allowed, -1.0).argmax(1, keepdim=True)
    return candidates.gather(1, chosen).squeeze(1).long()


def neighbor_vote(neighbors: Tensor, shares: Tensor) -> Tensor:
    """Return the mean over the neighbors of their rows in `shares`, such as one-hot labels or probabilities.

    Shape: (N, K), (N, C) -> (N, C).
    """
    total = torch.zeros_like(shares)
    for column in neighbors.unbind(1):
        total += shares[column]
    return total / neighbors.shape[1]


def neighbor_similarity(features: Tensor, neighbors: Tensor) -> Tensor:
    """Return the mean cosine similarity of each example and its neighbors. Shape: (N, D), (N, K) -> (N,) in -1..1."""
    unit = F.normalize(features.float(), dim=1)
    found = torch.empty(len(unit), device=unit.device)
    for rows, near, part in zip(unit.split(CHUNK), neighbors.split(CHUNK), found.split(CHUNK), strict=True):
        torch.mean(torch.einsum("bd,bkd->bk", rows, unit[near]), 1, out=part)
    return found


def mean_of_similar(features: Tensor, shares: Tensor, k: int) -> Tensor:
    """Return the mean of the rows in `shares` of the k most similar others, each weighted by its similarity.

    The similarity is the cosine of the features, and 0 where that is negative; where it is 0 for all, all weigh the
    same. Of fewer than k others all are taken. Gradients pass similarities and shares (NCR: Iscen et al., CVPR 2022).
    Memory grows with B x B. Costs no synchronization. Shape: (B, D), (B, C) -> (B, C), with B > 1.
    """
    unit = F.normalize(features.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    near, index = (unit @ unit.T).masked_fill(itself, float("-inf")).topk(min(k, len(unit) - 1), 1)
    weights = near.clamp(min=0) + 1e-8
    weights = weights / weights.sum(1, keepdim=True)
    return (weights.unsqueeze(2) * shares[index]).sum(1)


def voted_labels(
    candidates: Tensor, labels: Tensor, num_classes: int, rounds: int, trusted: Tensor | None = None
) -> Tensor:
    """Return labels after label propagation on the graph of neighbors.

    Each round replaces the votes of an example by the mean votes of its candidates (one-hot labels at first), so that
    wrong labels that are spread over the classes cancel out. The result is the class whose share of the votes is
    furthest above its mean over all examples. Labels that are known to be right (`trusted`) stay through all rounds.
    With 0 rounds the labels are returned as they are. Memory grows with N x C.
    Shape: (N, K), (N,) int64, (N,) bool -> (N,) int64.
    """
    if rounds == 0:
        return labels
    votes = given = F.one_hot(labels, num_classes).float()
    for _ in range(rounds):
        votes = keep_given(neighbor_vote(candidates, votes), given, trusted)
    return (votes - votes.mean(0)).argmax(1)
