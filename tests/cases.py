"""Every kernel, support, engine and layer of the library, once: the laws run over these lists."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import omniconv as oc
from omniconv.engines import ENGINES
from omniconv.groups import GL2, O2, SL2, SO2, SO3, Count, Cyclic, Dihedral, Group, Scaling, Trivial
from omniconv.groups import Product as GroupProduct
from omniconv.kernels import (
    MLP,
    SIREN,
    Bumps,
    ChebyshevSeries,
    Conditional,
    Fourier,
    FourierNet,
    FourierSeries,
    Free,
    Gabor,
    HyenaFilter,
    KernelFactory,
    Modal,
    Multiscale,
    Table,
)
from omniconv.nn import (
    BasicBlock,
    BatchNorm,
    Branched,
    ChannelNorm,
    Conv,
    Conv1d,
    Conv2d,
    Conv3d,
    DenseHead,
    Downsample,
    GatedBlock,
    GatedConv,
    GroupAttention,
    GroupBasicBlock,
    GroupConv,
    GroupConvBlock,
    GroupProject,
    GroupResidualBlock,
    GroupSelfAttention,
    GroupSelfAttentionBlock,
    LastHead,
    LayerNorm,
    LiftingConv,
    LiftingProduct,
    LiftingSelfAttention,
    MultiHeadConv,
    NonStationaryConv,
    Pointwise,
    PoolHead,
    ResidualBlock,
    SharedMLP,
    Standardize,
    TokenEmbedding,
)
from omniconv.nn.group_conv import FACTORIZATIONS as ALL_FACTORIZATIONS
from omniconv.supports import Decay, Disk, Full, Gaussian, Product, Sigmoid, SupportFactory

GROUPS: dict[str, Group] = {
    "trivial-1": Trivial(1),
    "trivial": Trivial(2),
    "trivial-3": Trivial(3),
    "cyclic": Cyclic(4),
    "cyclic-7": Cyclic(7),
    "dihedral": Dihedral(4),
    "dihedral-3": Dihedral(3),
    "so2": SO2(),
    "o2": O2(),
    "scaling-1": Scaling(1, high=8.0),
    "scaling": Scaling(2),
    "scaling-3": Scaling(3, high=1.5),
    "sim2": GroupProduct((SO2(), Scaling(2, high=4.0))),
    "cyclic-scaling": GroupProduct((Cyclic(8), Scaling(2))),
    "so3": SO3(),
    "similarities-3": GroupProduct((SO3(), Scaling(3, high=2.0))),
    "gl2": GL2(),
    "gl2-far": GL2(high=4.0, shear=1.0),
    "sl2": SL2(),
}
"""By name, each with the parameters that matter."""

FACTORIZATIONS = tuple(name for name in ALL_FACTORIZATIONS if name != "factor-separable")
"""Those for any group."""

GROUP_SAMPLES: dict[str, Count] = {
    "trivial-1": 1,
    "trivial": 1,
    "trivial-3": 1,
    "cyclic": 4,
    "cyclic-7": 7,
    "dihedral": 8,
    "dihedral-3": 6,
    "so2": 8,
    "o2": 8,
    "scaling-1": 3,
    "scaling": 3,
    "scaling-3": 2,
    "sim2": (4, 2),
    "cyclic-scaling": (8, 2),
    "so3": 24,
    "similarities-3": (12, 2),
    "gl2": (4, 2, 2),
    "gl2-far": (4, 1, 2),
    "sl2": (4, 3),
}
"""By name of the group, how many samples a layer takes in the tests."""

KERNELS: dict[str, KernelFactory] = {
    "table": Table,
    "table-dilated": partial(Table, dilation=2),
    "siren": SIREN,
    "siren-omega_0": partial(SIREN, omega_0=10.0, depth=4),
    "siren-weight-norm": partial(SIREN, weight_norm=True),
    "gabor": Gabor,
    "gabor-omega_0": partial(Gabor, omega_0=2.0, depth=2, hidden=8, spread=0.5),
    "gabor-isotropic": partial(Gabor, isotropic=True),
    "fourier-net": FourierNet,
    "fourier-net-omega_0": partial(FourierNet, omega_0=1.0, depth=1, hidden=8),
    "mlp": MLP,
    "mlp-swish": partial(MLP, activation="swish", depth=4),
    "mlp-weight-norm": partial(MLP, weight_norm=True),
    "mlp-spder": partial(MLP, activation="spder", depth=4),
    "mlp-fkan": partial(MLP, first=partial(FourierSeries, harmonics=4)),
    "mlp-chebyshev": partial(MLP, first=partial(ChebyshevSeries, degree=6), weight_norm=True),
    "fourier-series": FourierSeries,
    "chebyshev-series": ChebyshevSeries,
    "conditional": partial(Conditional, hidden=4),
    "conditional-table": partial(Conditional, conditions=3, kernel=Table, hidden=3, depth=3),
    "fourier": Fourier,
    "fourier-omega_0": partial(Fourier, omega_0=1.0, depth=2, hidden=64),
    "multiscale": Multiscale,
    "multiscale-small": partial(Multiscale, size=2, alpha=0.7),
    "modal": Modal,
    "modal-inv-bilinear": partial(Modal, init="inv", discretization="bilinear", modes=5, rank=2),
    "modal-real": partial(Modal, init="real", modes=4),
    "modal-legs-dt": partial(Modal, init="legs", modes=8, dt=(1e-3, 1e-2)),
    "hyena-filter": HyenaFilter,
    "hyena-filter-frequency": partial(HyenaFilter, bands=3, hidden=16, depth=2, frequency=10.0, shift=0.1),
    "free": Free,
    "free-smooth": partial(Free, squash=0.1, smoothing=3),
    "bumps": Bumps,
    "bumps-smpconv": partial(Bumps, bumps=64, shape="cone", normalize="count", spread=1.0, shared=False),
    "bumps-dcls": partial(Bumps, bumps=64, shape="triangle", learn_width=False, spread=1.0, shared=False),
    "bumps-dcls-gaussian": partial(Bumps, bumps=16, normalize="sum", shared=False),
    "bumps-posterior": partial(Bumps, bumps=16, normalize="posterior"),
}

SUPPORTS: dict[str, SupportFactory] = {
    "full": Full,
    "gaussian": Gaussian,
    "gaussian-narrow": partial(Gaussian, width=0.1, widest=1.0),
    "decay": Decay,
    "decay-narrow": partial(Decay, width=0.1, widest=1.0),
    "disk": Disk,
    "disk-small": partial(Disk, radius=0.2, edge=0.5),
    "sigmoid": Sigmoid,
    "sigmoid-narrow": partial(Sigmoid, offset=0.1, temperature=0.2, widest=1.0),
    "product": partial(Product, factors=(Gaussian, partial(Sigmoid, offset=0.3))),
}

__all__ = ["ENGINES", "KERNELS", "LAYERS", "SUPPORTS", "TAKES", "layer_and_input"]

TOKENS = 7
small = partial(Gabor, hidden=4, depth=1)
filters = partial(HyenaFilter, bands=2, hidden=4)
F64 = torch.float64


def block() -> ResidualBlock:
    """A residual block in evaluation mode: batch norm's running statistics are its own business."""
    conv = Conv(3, 3, 5, kernel=small, mixing="separable", causal=True, dtype=F64)
    return ResidualBlock(BatchNorm(3, dtype=F64), conv, Pointwise(3, 3, dtype=F64)).eval()


def branched() -> Branched:
    """A dense convolution beside two small ones, in evaluation mode."""
    return Branched(Conv(3, 2, 7, kernel=small, dtype=F64), [(3, 1), (3, 2)]).eval()


def basic_block() -> BasicBlock:
    """A block of two convolutions that changes the number of channels."""
    convs = [Conv(channels, 2, 5, kernel=small, dtype=F64) for channels in (3, 2)]
    norms = [LayerNorm(2, dtype=F64) for _ in convs]
    return BasicBlock(convs[0], norms[0], convs[1], norms[1], Pointwise(3, 2, dtype=F64), rectify=True)


def partial_conv() -> GroupConv:
    """A group convolution on a learned part, of a width inside its range: at the ends its slope is one-sided."""
    layer = GroupConv(2, 3, 5, SO2(), 4, kernel=small, reach=1, partial=True, dtype=F64)
    with torch.no_grad():
        layer.get_parameter("partial.width").fill_(0.6)
    return layer


def group_block(kind: str) -> nn.Module:
    """A residual or plain block of group convolutions, in evaluation mode."""
    where = (5, SO2(), 4)

    def conv(channels: int, reach: int = 1) -> GroupConv:
        return GroupConv(channels, 3, *where, kernel=small, reach=reach, dtype=F64)

    norms = [BatchNorm(3, dtype=F64) for _ in range(2)]
    maps = GroupAttention(2, *where, kernel=small, reach=1, dtype=F64)
    blocks: dict[str, Callable[[], nn.Module]] = {
        "basic": lambda: GroupBasicBlock(conv(2), norms[0], conv(3), norms[1], conv(2, 0)),
        "conv": lambda: GroupConvBlock(conv(2), norms[0], attention=maps),
        "self-attention": lambda: GroupSelfAttentionBlock(
            BatchNorm(2, dtype=F64),
            GroupSelfAttention(2, 3, *where, heads=3, kernel=small, reach=1, dtype=F64),
            norms[0],
            *(Pointwise(3, 2, dtype=F64), Pointwise(2, 3, dtype=F64), Pointwise(2, 3, dtype=F64)),
        ),
        "residual": lambda: GroupResidualBlock(norms[0], conv(3), Pointwise(3, 3, dtype=F64)),
    }
    return blocks[kind]().eval()


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "shared-mlp": (lambda: SharedMLP(2, (4, 3), dtype=F64).eval(), (2, 2, 7)),
    "conv-dense": (lambda: Conv(2, 3, 6, kernel=small, dtype=F64), (2, 2, 6)),
    "conv-circular": (
        lambda: Conv(2, 2, 6, kernel=small, mixing="depthwise", boundary="circular", dtype=F64),
        (2, 2, 6),
    ),
    "conv1d": (lambda: Conv1d(2, 3, 7, kernel=Table, support=Full, causal=True, reach=2, dtype=F64), (2, 2, 7)),
    "conv-recurrent": (
        lambda: Conv(
            *(2, 3, 7),
            kernel=partial(Modal, modes=2),
            support=Full,
            mixing="separable",
            causal=True,
            engine="recurrent",
            dtype=F64,
        ),
        (2, 2, 7),
    ),
    "lifting-conv": (
        lambda: LiftingConv(2, 3, (4, 3), SO2(), 4, kernel=small, reach=1, dtype=F64),
        (2, 2, 4, 3),
    ),
    "lifting-conv-separable": (
        lambda: LiftingConv(2, 3, 5, Scaling(1, high=4.0), 3, kernel=small, mixing="separable", reach=1, dtype=F64),
        (2, 2, 5),
    ),
    **{
        f"group-conv-{factorization}": (
            partial(GroupConv, *(2, 3, (4, 3), O2(), 4), kernel=small, factorization=factorization, reach=1, dtype=F64),
            (2, 2, 4, 4, 3),
        )
        for factorization in FACTORIZATIONS
    },
    "group-conv-factor-separable": (
        partial(
            GroupConv,
            *(2, 3, 4, GROUPS["sim2"], (2, 2)),
            kernel=small,
            factorization="factor-separable",
            reach=1,
            dtype=F64,
        ),
        (2, 2, 4, 4, 4),
    ),
    "group-conv-partial": (
        partial_conv,
        (2, 2, 4, 5, 5),
    ),
    "group-conv-relaxed": (
        lambda: GroupConv(2, 3, 5, O2(), 4, kernel=small, reach=1, relaxed=2, dtype=F64).eval(),
        (2, 2, 4, 5, 5),
    ),
    "lifting-conv-relaxed": (lambda: LiftingConv(2, 3, 5, SO2(), 4, reach=1, relaxed=True, dtype=F64), (2, 2, 5, 5)),
    "non-stationary-conv": (lambda: NonStationaryConv(2, 3, 5, O2(), 4, reach=1, dtype=F64), (2, 2, 4, 5, 5)),
    "group-attention": (lambda: GroupAttention(2, 5, O2(), 4, kernel=small, dtype=F64), (2, 2, 4, 5, 5)),
    "lifting-self-attention": (
        lambda: LiftingSelfAttention(2, 4, 5, SO2(), 4, heads=2, kernel=small, reach=1, dtype=F64),
        (2, 2, 5, 5),
    ),
    "group-self-attention": (
        lambda: GroupSelfAttention(2, 4, 5, O2(), 4, heads=2, kernel=small, reach=1, dtype=F64),
        (2, 2, 4, 5, 5),
    ),
    "group-basic-block": (partial(group_block, "basic"), (2, 2, 4, 5, 5)),
    "group-conv-block": (partial(group_block, "conv"), (2, 2, 4, 5, 5)),
    "group-self-attention-block": (partial(group_block, "self-attention"), (2, 2, 4, 5, 5)),
    "group-self-attention-net": (
        lambda: oc.models.GroupSelfAttentionNet(
            *(1, 2, (5, 4)), group=SO2(), samples=4, widths=(4,), heads=2, reach=1, kernel=small, dtype=F64
        ).eval(),
        (2, 1, 5, 4),
    ),
    "wavelet-net": (
        lambda: oc.models.WaveletNet(
            *(1, 2, 16),
            scales=2,
            blocks=1,
            width=4,
            pools=1,
            lift_reach=2,
            reach=1,
            kernel=small,
            support=Gaussian,  # smooth: second derivatives are looked at
            dtype=F64,
        ).eval(),
        (2, 1, 16),
    ),
    "group-residual-block": (partial(group_block, "residual"), (2, 3, 4, 5, 5)),
    "downsample": (lambda: Downsample(2), (2, 3, 4, 5, 6)),
    "gcnn": (
        lambda: oc.models.GCNN(
            *(1, 2, (6, 5)), group=O2(), samples=4, widths=(6,), kernel=small, reach=1, dtype=F64
        ).eval(),
        (2, 1, 6, 5),
    ),
    "group-project": (lambda: GroupProject("mean"), (2, 3, 4, 5, 5)),
    "lifting-product": (  # a smooth support: second derivatives are looked at
        lambda: LiftingProduct(2, 3, (4, 3), SO2(), 4, kernel=small, support=Gaussian, dtype=F64),
        (2, 2, 4, 3),
    ),
    "conv2d": (lambda: Conv2d(2, 3, (4, 3), kernel=small, mixing="separable", dtype=F64), (1, 2, 4, 3)),
    "conv3d": (
        lambda: Conv3d(1, 2, 2, kernel=partial(SIREN, hidden=4), mixing="separable", dtype=F64),
        (1, 1, 2, 2, 2),
    ),
    "branched": (branched, (2, 3, 7)),
    "pointwise": (lambda: Pointwise(3, 2, dtype=F64), (2, 3, 4, 2)),
    "layer-norm": (lambda: LayerNorm(3, dtype=F64), (2, 3, 5)),
    "standardize": (lambda: Standardize(3, dtype=F64), (2, 3, 5)),
    "channel-norm": (lambda: ChannelNorm(3, dtype=F64), (2, 3, 5)),
    "batch-norm": (lambda: BatchNorm(3, dtype=F64).eval(), (2, 3, 5)),
    "block": (block, (2, 3, 5)),
    "basic-block": (basic_block, (2, 3, 5)),
    "gated-conv": (lambda: GatedConv(3, 5, order=3, kernel=filters, dtype=F64), (2, 3, 5)),
    "gated-conv-2d": (lambda: GatedConv(2, (3, 2), kernel=filters, causal=False, dtype=F64), (1, 2, 3, 2)),
    "multi-head-conv": (lambda: MultiHeadConv(2, 2, 5, kernel=filters, dtype=F64), (2, 4, 5)),
    "gated-block": (lambda: GatedBlock(GatedConv(3, 5, kernel=filters, dtype=F64), depth=2), (2, 3, 5)),
    "pool": (lambda: PoolHead(3, 2, dtype=F64), (2, 3, 4, 2)),
    "last": (lambda: LastHead(3, 2, dtype=F64), (2, 3, 5)),
    "dense": (lambda: DenseHead(3, 2, dtype=F64), (2, 3, 5)),
    "ccnn": (
        lambda: oc.CCNN(2, 3, 6, blocks=1, width=4, kernel=small, causal=True, dtype=F64).eval(),
        (2, 2, 6),
    ),
    "token-embedding": (lambda: TokenEmbedding(TOKENS, 2, dtype=F64), (2, 5)),
    "ccnn-tokens": (
        lambda: oc.CCNN(2, 3, 6, blocks=1, width=4, kernel=small, tokens=TOKENS, dtype=F64).eval(),
        (2, 6),
    ),
    "ccnn-group": (
        lambda: oc.CCNN(
            1, 2, (5, 4), blocks=1, width=4, kernel=small, group=SO2(), samples=4, reach=1, dtype=F64
        ).eval(),
        (2, 1, 5, 4),
    ),
    "ckcnn": (lambda: oc.CKCNN(2, 3, 6, blocks=1, width=4, kernel=small, dtype=F64), (2, 2, 6)),
    "hyena": (lambda: oc.models.Hyena(2, 3, 6, blocks=1, width=4, kernel=filters, dtype=F64), (2, 2, 6)),
    "hyena-tokens": (
        lambda: oc.models.Hyena(
            *(4, TOKENS, 6), blocks=1, width=4, kernel=filters, tokens=TOKENS, tied=True, head="dense", dtype=F64
        ),
        (2, 6),
    ),
    "multi-hyena": (
        lambda: oc.models.MultiHyena(2, 3, 6, blocks=1, n_filters=2, head_width=2, kernel=filters, dtype=F64),
        (2, 2, 6),
    ),
    "flexnet": (
        lambda: oc.FlexNet(1, 2, (3, 4), blocks=(1, 1), widths=(2, 3), kernel=small, dtype=F64).eval(),
        (1, 1, 3, 4),
    ),
    "ccnn-2d": (lambda: oc.CCNN(1, 2, (3, 4), blocks=1, width=2, kernel=small, dtype=F64).eval(), (1, 1, 3, 4)),
}

EVERYWHERE = ("more axes", "no samples")
"""Of layers that look at every position for itself: any number of axes, and no positions for none."""

TAKES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("conv-dense", "conv-circular", "conv1d", "conv-recurrent", "conv2d", "conv3d"), ("no batch",)),
    # Streams run these in float64 too, for whoever wants a reference.
    **dict.fromkeys(("pointwise", "standardize", "channel-norm", "dense"), (*EVERYWHERE, "float64")),
    **dict.fromkeys(("layer-norm", "batch-norm", "shared-mlp"), EVERYWHERE),
    "pool": (*EVERYWHERE, "float64"),  # a cloud may be empty: of nothing the mean is zero
    "last": ("more axes", "float64"),
    "downsample": ("no batch", "more axes", "more channels"),
    "group-project": ("no batch", "more channels", *EVERYWHERE),
    "token-embedding": ("no batch", *EVERYWHERE),
}
"""By name of the layer, what it takes of `omniconv.testing.layers.bad_signals`; else it refuses them all."""


def layer_and_input(name: str) -> tuple[nn.Module, Tensor]:
    """The layer of that name with fixed weights, and a fixed input for it."""
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make()
    return layer, torch.randint(TOKENS, shape) if "token" in name else torch.randn(*shape, dtype=torch.float64)
