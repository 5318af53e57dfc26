"""Hankel matrices of impulse responses: how many states a recurrence needs, and the space that they span."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, describe

DENSE = 384
"""Rows up to which all eigenvalues of a Hankel matrix are computed; of larger ones a few by subspace iteration."""

ITERATIONS, OVERSAMPLING = 4, 10
"""Of the subspace iteration: each squares the ratio of what is wanted to what is not."""

Response = Annotated[Tensor, "channels length"]


def hankel_singular_values(taps: Response) -> Annotated[Tensor, "channels lags"]:
    """Singular values of the Hankel matrix S[i, j] = taps[i + j + 1] of every channel, descending.

    Their number above a threshold is the number of states of a recurrence that errs by about that threshold: the best
    stable recurrence of order d has an error of exactly the (d+1)-th in Hankel norm (Adamyan, Arov and Krein), and no
    recurrence of order d has a smaller sum of |taps - its taps|. The tap at lag 0 needs no state and is left out;
    beyond the last tap there is silence.

    `taps`: (channels, length) of causal kernels, of length 2 at least. The time grows with the cube of the length: some
    seconds per channel for 2,000 lags.
    Returns float64, (channels, length - 1). Raises `ValueError` or `TypeError` that names the argument.

    >>> taps = 0.5 ** torch.arange(64.0)[None]  # one pole
    >>> values = hankel_singular_values(taps)
    >>> values.shape, bool(values[0, 1] < 1e-8 * values[0, 0])
    (torch.Size([1, 63]), True)

    Glover 1984 (All optimal Hankel-norm approximations); Massaroli et al. 2023 (Laughing Hyena).
    """
    response = check_taps(taps)[:, 1:]
    padded = torch.nn.functional.pad(response, (0, response.shape[1] - 1))
    # One at a time: the matrices are large.
    every = [torch.linalg.eigvalsh(one.unfold(0, response.shape[1], 1)) for one in padded]
    return torch.stack(every).abs().sort(dim=1, descending=True).values


def check_taps(taps: Any) -> Response:
    """Return taps in float64, or raise unless they are finite impulse responses (channels, length)."""
    check_floating_tensor("taps", taps)
    if taps.ndim != 2 or taps.shape[0] < 1 or taps.shape[1] < 2:
        raise ValueError(f"`taps` must be (channels, length) of length 2 at least; got {describe(taps)}.")
    if not taps.isfinite().all():
        raise ValueError("`taps` must be finite; some are not. Look for a training that has diverged.")
    return taps.detach().double()


def leading_eigenvalues(response: Response, count: int) -> tuple[Tensor, Tensor]:
    """The eigenvalues largest in modulus of S[i, j] = response[i + j], by modulus, and their eigenvectors.

    As (channels, count) and (channels, rows, count). Of many rows nearly these, and the less so the more slowly the
    eigenvalues fall off. `response`: (channels, 2 rows - 1) or one more, which is left out.
    """
    rows = (response.shape[1] + 1) // 2
    response = response[:, : 2 * rows - 1]
    basis = None
    if rows <= max(DENSE, 3 * (count + OVERSAMPLING)):
        matrix = response.unfold(1, rows, 1)
    else:
        basis = invariant_space(response, rows, count + OVERSAMPLING)
        matrix = basis.mT @ product(response, basis)
        matrix = 0.5 * (matrix + matrix.mT)
    values, vectors = torch.linalg.eigh(matrix)
    order = values.abs().argsort(dim=1, descending=True)[:, :count]
    vectors = vectors.gather(2, order[:, None].expand(-1, vectors.shape[1], -1))
    return values.gather(1, order), vectors if basis is None else basis @ vectors


def invariant_space(response: Response, rows: int, count: int) -> Tensor:
    """An orthonormal basis (channels, rows, count) of nearly the leading eigenvectors."""
    generator = torch.Generator().manual_seed(0)  # the same kernels give the same recurrence
    start = torch.randn(rows, count, generator=generator, dtype=torch.float64).to(response.device)
    basis = torch.linalg.qr(start.expand(len(response), -1, -1))[0]
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(product(response, basis))[0]
    return basis


def product(response: Response, vectors: Tensor) -> Tensor:
    """S v for S[i, j] = response[i + j], which is a correlation; `vectors`: (channels, rows, count)."""
    rows = vectors.shape[1]
    length = 1 << (2 * rows - 1).bit_length()
    spectrum = torch.fft.rfft(response, length)[:, None] * torch.fft.rfft(vectors.mT, length).conj()
    return torch.fft.irfft(spectrum, length)[..., :rows].mT
