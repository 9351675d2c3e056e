"""Nearest neighbors in feature space, in blocks, on any device: exact up to a number of examples, by cells beyond.

Legend: N examples, D features, K neighbors, B rows, M columns, G groups.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.config import UserError

CHUNK = 512
"""Rows compared at once, ..."""
COMPARED = 1 << 25
"""... and most similarities: memory is four bytes of each, whatever N."""
WIDTH = 2048
"""Columns of one matrix product; its result still lies in the processor's cache when it is looked at."""
EXACT_UP_TO = 200_000
"""Examples up to which the neighbors are exact: the time of that grows with N x N."""
PROBES = 24
"""Cells nearest to that of an example, its own among them, in which its approximate neighbors are looked for."""
LLOYD_STEPS = 8
"""Rounds of k-means on a sample of `SAMPLED` examples for each cell."""
SAMPLED = 64


def nearest_neighbors(features: Tensor, k: int, exact_up_to: int = EXACT_UP_TO) -> Tensor:
    """Return the k nearest others of each example, nearest first, in Euclidean distance of L2-normalized rows.

    On the unit sphere that is the order of falling inner product (ScanMix section 4.2, K = 20); of equal ones the
    smaller position comes first. An example is never its own neighbor, and duplicates count as neighbors. Of more
    than `exact_up_to` examples some neighbors may not be the nearest, see `near_in_cells`.
    Shape: (N, D) -> (N, K) int64.

    Raises:
        UserError: when there are not more than k examples.
    """
    count = len(features)
    if not 1 <= k < count:
        raise UserError(f"{k} nearest neighbors of {count} examples were asked for; ask for 1 to {count - 1}")
    unit = F.normalize(features.float(), dim=1)
    if count > exact_up_to:
        return near_in_cells(unit, k)
    everything = torch.arange(count, device=unit.device)
    found = torch.empty(count, k, dtype=torch.int64, device=unit.device)
    search(unit, everything, everything, found)
    return found


def search(unit: Tensor, asking: Tensor, among: Tensor, found: Tensor) -> None:
    """Write the nearest neighbors of some examples among some examples into their rows of `found`.

    The similarities of a block of rows are made in G products of every G-th column each, and their largest kept as
    they are made. A group is what stands at one place in all of them: G columns in a row. The largest k of a row
    lie in the k groups whose largest are largest, so that of all others nothing is looked at again.
    Shape: (N, D) unit rows, positions (A,) and (M,) in rising order with M > k, and (N, k) int64.
    """
    k, groups = found.shape[1], -(-len(among) // WIDTH)
    columns = [unit[among[place::groups]] for place in range(groups)]
    width = len(columns[0])
    high = min(CHUNK, max(1, COMPARED // (groups * width)), len(asking))
    similarity = torch.full((groups, high, width), float("-inf"), device=unit.device)
    high_tide = torch.empty(high, width, device=unit.device)
    for rows in asking.split(high):
        block, largest, queries = similarity[:, : len(rows)], high_tide[: len(rows)], unit[rows]
        for number, (part, others) in enumerate(zip(block, columns, strict=True)):
            _multiply(queries, others, part[:, : len(others)])
            torch.maximum(largest if number else part, part, out=largest)
        found[rows] = among[_nearest(block, largest, rows, among, k)]


def _multiply(queries: Tensor, others: Tensor, out: Tensor) -> None:
    """Write queries @ others.T. Shape: (B, D), (M, D) -> (B, M).

    On processors as a convolution of images of one row: PyTorch's matrix product does not use all that some can do
    (AMD's with AVX-512: 105 against 230 GFLOP/s), and oneDNN's convolution does. PyTorch takes that from 16 images on.
    """
    if out.device.type != "cpu":
        torch.mm(queries, others.T, out=out)
        return
    images = F.pad(queries, (0, 0, 0, -len(queries) % 16)).view(16, 1, -1, queries.shape[1]).permute(0, 3, 1, 2)
    found = F.conv2d(images, others.view(*others.shape, 1, 1)).permute(0, 2, 3, 1)
    out.copy_(found.reshape(-1, len(others))[: len(out)])


def _nearest(similarity: Tensor, largest: Tensor, rows: Tensor, among: Tensor, k: int) -> Tensor:
    """Columns of the k nearest others of each row. Shape: (G, B, M / G), (B, M / G), (B,), (M,) -> (B, k)."""
    groups = len(similarity)
    chosen = _top(largest, min(k + 1, largest.shape[1]))  # one more: the example itself may be among them
    inside = similarity.gather(2, chosen.repeat(groups, 1, 1)).permute(1, 2, 0).flatten(1)  # `expand` takes longer
    columns = (chosen.unsqueeze(2) * groups + torch.arange(groups, device=rows.device)).flatten(1)
    place = _top(inside, k + 1)
    order = inside.gather(1, place).sort(dim=1, descending=True, stable=True).indices
    columns = columns.gather(1, place.gather(1, order))
    other = among[columns] != rows.unsqueeze(1)
    other[:, -1] &= ~other.all(1)  # where so many others are as near that it is not, the last is one too many
    return columns[other].view(-1, k)


def _top(values: Tensor, k: int) -> Tensor:
    """Places of the k largest in rising order; of equal ones the smaller place. Shape: (B, M) -> (B, k)."""
    if k == values.shape[1]:
        return torch.arange(k, device=values.device).expand(len(values), -1)
    largest = values.topk(k + 1, 1)
    places = largest.indices[:, :k]
    open_choice = largest.values[:, k - 1] == largest.values[:, k]
    if bool(open_choice.any()):
        places[open_choice] = values[open_choice].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return places.sort(1).values


def near_in_cells(unit: Tensor, k: int) -> Tensor:
    """Nearest neighbors, each looked for in the `PROBES` cells nearest to its own alone.

    The cells are those of k-means (an inverted file), about as many as the root of N; all examples of a cell are
    compared with the same others, in one matrix product. Time grows with N to the power of 1.5, and memory with N.
    The same rows have the same neighbors, whoever asks: the draw of the sample has a seed of its own.
    Shape: (N, D) unit rows -> (N, k) int64.
    """
    centers = _centers(unit, max(1, round(len(unit) ** 0.5)))
    cell = _cells(unit, centers)
    members = cell.argsort(stable=True).split(cell.bincount(minlength=len(centers)).tolist())
    sizes = torch.tensor([len(inside) for inside in members], device=unit.device)
    near = (centers @ centers.T).argsort(dim=1, descending=True)
    enough = (sizes[near].cumsum(1) <= k).sum(1) + 1  # so many cells hold more than k examples
    found = torch.empty(len(unit), k, dtype=torch.int64, device=unit.device)
    for inside, cells, least in zip(members, near.tolist(), enough.tolist(), strict=True):
        if len(inside):
            among = torch.cat([members[other] for other in cells[: max(PROBES, least)]]).sort().values
            search(unit, inside, among, found)
    return found


def _cells(unit: Tensor, centers: Tensor) -> Tensor:
    """Number of the nearest center of each row. Shape: (N, D), (cells, D) -> (N,) int64.

    Written into one tensor: small results between large ones that come and go would keep gigabytes of freed memory.
    """
    cell = torch.empty(len(unit), dtype=torch.int64, device=unit.device)
    for rows, part in zip(unit.split(4096), cell.split(4096), strict=True):
        torch.argmax(rows @ centers.T, 1, out=part)
    return cell


def _centers(unit: Tensor, count: int) -> Tensor:
    """Unit centers of k-means on a sample. Shape: (N, D) -> (count, D)."""
    generator = Generator(unit.device).manual_seed(0)
    sample = unit[torch.randperm(len(unit), generator=generator, device=unit.device)[: SAMPLED * count]]
    centers = sample[:count].clone()
    for _ in range(LLOYD_STEPS):
        sums = torch.zeros_like(centers).index_add_(0, _cells(sample, centers), sample)
        # a center to which nothing is nearest stays where it is
        centers = torch.where((sums != 0).any(1, keepdim=True), F.normalize(sums, dim=1), centers)
    return centers


def agreeing(candidates: Tensor, labels: Tensor) -> Tensor:
    """E-step (Algorithm 1): q(z_ji) = 1 where neighbor j has the label of i. Shape: (N, K), (N,) -> (N, K) bool."""
    return labels[candidates] == labels.unsqueeze(1)


def draw_neighbor(candidates: Tensor, allowed: Tensor, generator: Generator) -> Tensor:
    """Draw one allowed candidate for each example, each as likely; any candidate where none is allowed.

    Shape: (N, K), (N, K) bool -> (N,) int64.
    """
    allowed = allowed | ~allowed.any(1, keepdim=True)
    scores = torch.rand(candidates.shape, generator=generator, device=generator.device)
    chosen = scores.masked_fill(~allowed, -1.0).argmax(1, keepdim=True)
    return candidates.gather(1, chosen).squeeze(1).long()


def neighbor_vote(neighbors: Tensor, shares: Tensor) -> Tensor:
    """Mean over the neighbors of what each holds, such as one-hot labels. Shape: (N, K), (N, C) -> (N, C)."""
    total = torch.zeros_like(shares)
    for column in neighbors.unbind(1):
        total += shares[column]
    return total / neighbors.shape[1]


def neighbor_similarity(features: Tensor, neighbors: Tensor) -> Tensor:
    """Mean cosine between each example and its neighbors. Shape: (N, D), (N, K) -> (N,) in -1..1."""
    unit = F.normalize(features.float(), dim=1)
    found = torch.empty(len(unit), device=unit.device)
    for rows, near, part in zip(unit.split(CHUNK), neighbors.split(CHUNK), found.split(CHUNK), strict=True):
        torch.mean(torch.einsum("bd,bkd->bk", rows, unit[near]), 1, out=part)
    return found


def voted_labels(candidates: Tensor, labels: Tensor, num_classes: int, rounds: int) -> Tensor:
    """Return the labels after `rounds` of averaging over candidates: the class with most votes above its share.

    One round asks the candidates, two their candidates as well, and so on: label propagation on the graph of
    neighbors. Wrong labels that are spread over the classes cancel out; no rounds leave every label as it is.
    Shape: (N, K), (N,) -> (N,).
    """
    if rounds == 0:
        return labels
    votes = F.one_hot(labels, num_classes).float()
    for _ in range(rounds):
        votes = neighbor_vote(candidates, votes)
    return (votes - votes.mean(0)).argmax(1)
