"""A trained convolution as a recurrence: how many states a kernel needs, and what an order costs.

A small causal network learns to tell the ten digits of scikit-learn apart, read pixel by pixel. Writes `kernels.png`:
three kernels of its last convolution beside the taps of recurrences of order 4 and 8. Writes `orders.png`: the
relative error of that convolution's recurrences by their order, for two ways to find poles, beside the singular
values of the Hankel matrix, which no recurrence of that order is below in Hankel norm; and the share of test digits
for which the stream of the whole network predicts what the network does. Prints the certificate of a stream.

    python examples/plot_recurrence.py [folder]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from omniconv import CCNN, SIREN, Gaussian
from omniconv.data import ArraySamples, load_digits
from omniconv.recurrence import distill, hankel_singular_values, stream
from omniconv.training import Classification, Recipe, Run, train

ORDERS = (2, 4, 8, 16)
METHODS = {"esprit": "#0072B2", "prony": "#D55E00"}


def trained() -> tuple[CCNN, Tensor]:
    """A causal network of 64 samples, and test series."""
    digits = load_digits()
    view = next(view for view in digits.views if view.causal)
    torch.manual_seed(0)
    model = CCNN(
        1,
        10,
        64,
        blocks=1,
        width=16,
        causal=True,
        kernel=partial(SIREN, bandwidth=0.125),
        support=partial(Gaussian, width=0.5),
    )
    samples = ArraySamples(view.train.numpy(), digits.train_labels.numpy())
    train(
        model, Classification(tuple(range(10))), samples, recipe=Recipe(epochs=5), run=Run(device="cpu", progress=False)
    )
    return model.eval(), view.test


def draw_kernels(taps: Tensor) -> Figure:
    """Kernels beside the taps of recurrences."""
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    for channel, axes in enumerate(figure.subplots(1, 3)):
        axes.plot(taps[channel], color="black", label="trained")
        for order, style in ((4, ":"), (8, "--")):
            found, _ = distill(taps[channel : channel + 1], order=order)
            axes.plot(found.taps(taps.shape[1])[0], style, color="#0072B2", label=f"order {order}")
        axes.set(xlabel="lag, samples", title=f"channel {channel}")
    axes.legend()
    return figure


@torch.no_grad()
def draw_orders(model: CCNN, taps: Tensor, signals: Tensor) -> Figure:
    """Errors and agreement by order."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    size = taps.norm(dim=1)
    for method, color in METHODS.items():
        errors = [
            distill(taps, order=order, method=method, horizon=taps.shape[1])[1].certificate.relative for order in ORDERS
        ]
        left.semilogy(
            ORDERS, [error.median() for error in errors], "o-", color=color, label=f"{method}, median over channels"
        )
    bound = hankel_singular_values(taps) / size[:, None]
    left.semilogy(ORDERS, [bound[:, order].median() for order in ORDERS], "k--", label="singular value, relative")
    left.set(xlabel="order: poles, two of a pair", ylabel="relative l2 error")
    left.legend()
    own = model(signals).argmax(1)
    share = []
    for order in ORDERS:
        outputs, _ = stream(model, order=order, horizon=64).prefill(signals)
        share.append(float((outputs[..., -1].argmax(1) == own).float().mean()))
    right.plot(ORDERS, share, "o-", color="#009E73")
    right.set(xlabel="order of every layer", ylabel="same prediction as the network", ylim=(0, 1.02))
    return figure


def main(folder: Path) -> None:
    """Train, draw, print."""
    folder.mkdir(parents=True, exist_ok=True)
    model, signals = trained()
    taps = model.blocks[0].conv.taps().detach().double()  # type: ignore[union-attr, operator]
    draw_kernels(taps).savefig(folder / "kernels.png", dpi=120)
    draw_orders(model, taps, signals).savefig(folder / "orders.png", dpi=120)
    print(stream(model, tol=0.05, horizon=64).certificate)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
