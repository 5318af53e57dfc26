"""`convolve` against the definition, written out here, and against the framework."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import omniconv as oc
from omniconv import Problem, convolve
from omniconv.engines import ENGINES, select_engine
from omniconv.engines._plan import plan_of_shapes
from omniconv.engines._shorten import shorten
from omniconv.testing import TENSOR_CORES, TOLERANCE, assert_close


def definition(x: Tensor, taps: Tensor, causal: tuple[bool, ...], boundary: tuple[str, ...]) -> Tensor:
    """y[t] = sum_s taps[s] x[t + origin - s], every index written out, in float64, for dense taps."""
    signal, kernel = x.detach().double().numpy(), taps.detach().double().numpy()
    for axis, (n, k) in enumerate(zip(signal.shape[2:], kernel.shape[2:], strict=True)):
        u = np.arange(n)[:, None] + (0 if causal[axis] else k // 2) - np.arange(k)
        inside = (u >= 0) & (u < n) | (boundary[axis] == "circular")
        place = 2 + 2 * axis  # every axis before this one has become two: t, s
        signal = np.take(signal, u % n, place)
        signal = np.where(inside.reshape(n, k, *(1,) * (signal.ndim - place - 2)), signal, 0.0)
    t, s = "tuv"[: kernel.ndim - 2], "klm"[: kernel.ndim - 2]
    pairs = "".join(a + b for a, b in zip(t, s, strict=True))
    return torch.from_numpy(np.einsum(f"bc{pairs},oc{s}->bo{t}", signal, kernel))


def skip_if_refused(engine: str, x: Tensor, taps: Tensor, causal: Any = False, boundary: Any = "zero") -> None:
    """An engine may refuse a problem; then it has no promise to keep on it."""
    if reason := ENGINES[engine].reject(Problem.of(x, taps, causal=causal, boundary=boundary)):
        pytest.skip(f"{engine} refuses: {reason}")


def precise(engine: str) -> torch.dtype:
    """float64, but float32 for an engine that has no float64."""
    x, taps = torch.zeros(1, 2, 8, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    reason = ENGINES[engine].reject(Problem.of(x, taps, causal=True))
    return torch.float32 if reason is not None and "float64" in reason else torch.float64


MODES = {"causal": (True, "zero"), "zero": (False, "zero"), "circular": (False, "circular")}
LENGTHS = [(7, 3), (8, 4), (7, 4), (8, 3), (5, 9), (6, 12), (4, 5), (3, 8)]  # odd, even; kernel shorter, longer


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_values_and_gradients_equal_the_definition(
    dim: int, mode: str, depthwise: bool, dtype: torch.dtype, engine: str
) -> None:
    causal, boundary = MODES[mode]
    for n, k in LENGTHS if dim < 3 else LENGTHS[:: 3 if engine == "reference" else 2]:
        size, kernel = [n, n + 1, n - 1][:dim], [k, max(1, k - 1), k][:dim]
        x = torch.randn(2, 3, *size, dtype=dtype, requires_grad=True)
        taps = torch.randn(*((3,) if depthwise else (2, 3)), *kernel, dtype=dtype, requires_grad=True)
        skip_if_refused(engine, x, taps, causal, boundary)
        dense = torch.diag_embed(taps.movedim(0, -1)).movedim((-2, -1), (0, 1)) if depthwise else taps
        y = convolve(x, taps, causal=causal, boundary=boundary, engine=engine)
        assert y.dtype == dtype
        assert_close(y, definition(x, dense, (causal,) * dim, (boundary,) * dim), f"values at {n}, {k}")
        # Both gradients of <g, y>, from the definition and bilinearity: <dx, v> = <g, C(v, taps)> for any v.
        g, v, w = torch.randn_like(y), torch.randn_like(x), torch.randn_like(taps)
        dx, dtaps = torch.autograd.grad(y, (x, taps), g)
        dense_w = torch.diag_embed(w.movedim(0, -1)).movedim((-2, -1), (0, 1)) if depthwise else w
        along_x = definition(v, dense, (causal,) * dim, (boundary,) * dim)
        along_taps = definition(x, dense_w, (causal,) * dim, (boundary,) * dim)
        for gradient, direction, change in ((dx, v, along_x), (dtaps, w, along_taps)):
            left, right = (gradient.double() * direction.double()).sum(), (g.double() * change).sum()
            scale = g.double().norm() * change.norm()
            assert abs(left - right).item() <= TOLERANCE[dtype] * scale.item()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("n", "k"), [(9, 5), (10, 4), (6, 11)])
def test_it_is_the_frameworks_correlation_with_reversed_taps(n: int, k: int, engine: str) -> None:
    x, taps = torch.randn(2, 3, n, dtype=torch.float64), torch.randn(4, 3, k, dtype=torch.float64)
    skip_if_refused(engine, x, taps)
    padded = F.pad(x, (k - 1, 0))
    assert_close(convolve(x, taps, causal=True, engine=engine), F.conv1d(padded, taps.flip(-1)))
    padded = F.pad(x, (k - 1 - k // 2, k // 2))  # the centre tap has index k // 2
    assert_close(convolve(x, taps, engine=engine), F.conv1d(padded, taps.flip(-1)))


@pytest.mark.parametrize("engine", ENGINES)
def test_boundaries_and_directions_may_differ_between_axes(engine: str) -> None:
    x, taps = torch.randn(2, 2, 5, 6, 4, dtype=torch.float64), torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    causal, boundary = (True, False, False), ("zero", "circular", "zero")
    skip_if_refused(engine, x, taps, causal, boundary)
    y = convolve(x, taps, causal=causal, boundary=boundary, engine=engine)
    assert_close(y, definition(x, taps, causal, boundary))


@given(
    data=st.data(),
    dim=st.integers(1, 3),
    depthwise=st.booleans(),
    engine=st.sampled_from(["direct", "fft", "overlap_save", "auto"]),
    single=st.booleans(),
)
@settings(max_examples=150)
def test_engines_agree_on_any_problem(
    data: st.DataObject, dim: int, depthwise: bool, engine: str, single: bool
) -> None:
    size = data.draw(st.tuples(*[st.integers(1, 9)] * dim))
    kernel = data.draw(st.tuples(*[st.integers(1, 12)] * dim))
    modes = data.draw(st.tuples(*[st.sampled_from(list(MODES.values()))] * dim))
    causal, boundary = zip(*modes, strict=True)
    dtype = torch.float32 if single else torch.float64
    generator = torch.Generator().manual_seed(sum(size) * 31 + sum(kernel))
    x = torch.randn(2, 2, *size, generator=generator, dtype=torch.float64).to(dtype)
    engine = "auto" if engine == "overlap_save" and (dim > 1 or not depthwise) else engine
    taps = torch.randn(*((2,) if depthwise else (3, 2)), *kernel, generator=generator, dtype=torch.float64).to(dtype)
    y = convolve(x, taps, causal=causal, boundary=boundary, engine=engine)
    exact = convolve(x.double(), taps.double(), causal=causal, boundary=boundary, engine="reference")
    assert_close(y, exact)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [16, 17, 31, 1031])
def test_causal_means_that_the_future_changes_nothing(length: int, engine: str) -> None:
    dtype = precise(engine)
    x, taps = torch.randn(1, 2, length, dtype=dtype), torch.randn(2, 13, dtype=dtype)
    skip_if_refused(engine, x, taps, causal=True)
    y = convolve(x, taps, causal=True, engine=engine)
    changed = x.clone()
    changed[..., length // 2] += 10
    difference = (convolve(changed, taps, causal=True, engine=engine) - y).abs()
    assert difference[..., : length // 2].max().item() <= 100 * TOLERANCE[dtype]
    assert difference[..., length // 2 :].max().item() > 1e-2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [8, 9])
def test_causal_jacobian_is_lower_triangular(length: int, engine: str) -> None:
    dtype = precise(engine)
    taps = torch.randn(1, length, dtype=dtype)
    skip_if_refused(engine, torch.zeros(1, 1, length, dtype=dtype), taps, causal=True)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: convolve(x[None, None], taps, causal=True, engine=engine)[0, 0],
        torch.randn(length, dtype=dtype),
    )
    assert jacobian.triu(1).abs().max().item() <= TOLERANCE[dtype]
    assert_close(jacobian.diagonal(), taps[0, 0].expand(length))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("boundary", ["zero", "circular"])
def test_derivatives_of_first_and_second_order(boundary: str, depthwise: bool, engine: str) -> None:
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(*((2,) if depthwise else (3, 2)), 2, 5, dtype=torch.float64, requires_grad=True)

    skip_if_refused(engine, x, taps, boundary=boundary)

    def run(x: Tensor, taps: Tensor) -> Tensor:
        return convolve(x, taps, boundary=boundary, engine=engine)

    torch.autograd.gradcheck(run, (x, taps))
    torch.autograd.gradgradcheck(run, (x, taps))
    # One argument alone: the operator must not compute, nor need, the other gradient.
    torch.autograd.gradgradcheck(lambda x: run(x, taps.detach()), (x,))
    torch.autograd.gradgradcheck(lambda taps: run(x.detach(), taps), (taps,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("engine", ENGINES)
def test_low_precision_is_exact_up_to_the_rounding_of_the_output(engine: str, dtype: torch.dtype) -> None:
    x, taps = torch.randn(2, 3, 50).to(dtype), torch.randn(3, 50)
    skip_if_refused(engine, x, taps, causal=True)
    limit = TENSOR_CORES[dtype] if ENGINES[engine].half else TOLERANCE[dtype]
    y = convolve(x, taps, causal=True, engine=engine)
    assert y.dtype == dtype
    assert_close(y, convolve(x.double(), taps.double(), causal=True, engine="reference"), tolerance=limit)
    rounded = taps.to(dtype)
    exact = convolve(x.double(), rounded.double(), engine="reference")
    assert_close(convolve(x, rounded, engine=engine), exact, tolerance=limit)
    x.requires_grad_()
    convolve(x, taps.requires_grad_(), engine=engine).sum().backward()
    assert x.grad is not None
    assert taps.grad is not None
    assert (x.grad.dtype, taps.grad.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("channels", [1, 4, 16])
def test_rounding_of_long_sums(channels: int) -> None:
    """1,023 taps: the transform stays within the tolerance, direct sums grow with the root of the number of terms."""
    x, taps = torch.randn(2, channels, 1023), torch.randn(8, channels, 1023)
    exact = convolve(x.double(), taps.double(), engine="fft")
    assert_close(convolve(x, taps, engine="fft"), exact)
    growth = max(1.0, (channels * 1023 / 4092) ** 0.5)
    assert_close(convolve(x, taps, engine="direct"), exact, tolerance=1.1e-6 * growth)


def test_inputs_with_strides_and_empty_batches() -> None:
    for engine in ENGINES:
        x = torch.randn(2, 9, 6, dtype=precise(engine)).transpose(1, 2)
        taps = torch.randn(5, 6, dtype=precise(engine)).T
        if ENGINES[engine].reject(Problem.of(x, taps)):
            continue
        assert_close(convolve(x, taps, engine=engine), convolve(x.contiguous(), taps.contiguous(), engine="reference"))
        assert convolve(x[:0], taps, engine=engine).shape == (0, 6, 9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depthwise", [True, False])
def test_empty_batches_have_zero_gradients(depthwise: bool, engine: str) -> None:
    x = torch.zeros(0, 3, 16, requires_grad=True)
    taps = torch.randn(*((3,) if depthwise else (4, 3)), 5, requires_grad=True)
    skip_if_refused(engine, x, taps)
    y = convolve(x, taps, engine=engine)
    y.sum().backward()
    assert y.shape == (0, 3 if depthwise else 4, 16)
    assert x.grad is not None
    assert taps.grad is not None
    assert (x.grad.shape, int(taps.grad.count_nonzero())) == (x.shape, 0)


def test_forward_mode_is_refused_rather_than_wrong() -> None:
    taps = torch.randn(1, 3)
    with pytest.raises(NotImplementedError, match=r"no forward-mode derivatives.*Use reverse mode"):
        torch.func.jvp(lambda x: convolve(x, taps), (torch.randn(1, 1, 5),), (torch.ones(1, 1, 5),))


def test_autograd_keeps_the_inputs_and_nothing_else() -> None:
    x, taps = torch.randn(1, 2, 64, requires_grad=True), torch.randn(2, 64, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):  # type: ignore[func-returns-value]
        convolve(x, taps, causal=True, engine="fft")
    assert {tensor.data_ptr() for tensor in kept} == {x.data_ptr(), taps.data_ptr()}


@pytest.mark.parametrize(
    ("x", "taps", "options", "error", "message"),
    [
        ([1.0], torch.ones(1, 3), {}, TypeError, "`x` must be a torch.Tensor; got list"),
        (
            torch.ones(1, 1, 4, dtype=torch.long),
            torch.ones(1, 3),
            {},
            TypeError,
            "`x` must hold floating-point numbers",
        ),
        (torch.ones(1, 1, 4), torch.ones(1, 3, dtype=torch.long), {}, TypeError, "`taps` must hold floating-point"),
        (torch.ones(1, 1, 4, dtype=torch.cfloat), torch.ones(1, 3), {}, TypeError, "`x` must hold floating-point"),
        (torch.ones(4, 4), torch.ones(4, 3), {}, ValueError, r"`x` must be \(batch, channels, \*size\)"),
        (torch.ones(1, 1, 2, 2, 2, 2), torch.ones(1, 3), {}, ValueError, r"`x` must be \(batch, channels, \*size\)"),
        (torch.ones(1, 2, 4), torch.ones(3), {}, ValueError, r"`taps` must be \(channels, \*kernel\)"),
        (torch.ones(1, 2, 4), torch.ones(3, 3), {}, ValueError, r"are depthwise and need an `x` of 3 channels"),
        (torch.ones(1, 2, 4), torch.ones(2, 3, 3), {}, ValueError, r"are dense and need an `x` of 3 channels"),
        (torch.ones(1, 0, 4), torch.ones(0, 3), {}, ValueError, "at least one channel and one sample per axis"),
        (torch.ones(1, 2, 0), torch.ones(2, 3), {}, ValueError, "one sample per axis"),
        (torch.ones(1, 2, 4), torch.ones(2, 3).double(), {}, TypeError, "`taps` must have the dtype of `x`"),
        (torch.ones(1, 2, 4).double(), torch.ones(2, 3), {}, TypeError, r"Convert one of them with `\.to\(dtype\)`"),
        (
            torch.ones(1, 2, 4),
            torch.ones(2, 3, device="meta"),
            {},
            ValueError,
            "must be on one device; got cpu and meta",
        ),
        (
            torch.ones(1, 2, 4),
            torch.ones(2, 3),
            {"boundary": "same"},
            ValueError,
            "one of 'zero', 'circular'; got 'same'",
        ),
        (
            torch.ones(1, 2, 4),
            torch.ones(2, 3),
            {"causal": (True, True)},
            ValueError,
            "`causal` must be one value or 1",
        ),
        (torch.ones(1, 2, 4), torch.ones(2, 3), {"causal": "yes"}, TypeError, "`causal` must be True or False"),
        (
            torch.ones(1, 2, 4),
            torch.ones(2, 3),
            {"causal": True, "boundary": "circular"},
            ValueError,
            "around a circle the past is the future",
        ),
        (
            torch.ones(1, 2, 4),
            torch.ones(2, 3),
            {"engine": "ftt"},
            ValueError,
            "`engine` must be one of 'auto', ",
        ),
    ],
)
def test_bad_input_is_named(
    x: Tensor, taps: Tensor, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        convolve(x, taps, **options)  # type: ignore[arg-type]


def test_problem_describes_the_convolution() -> None:
    x, taps = torch.ones(2, 3, 8, 9), torch.ones(4, 3, 5, 6, requires_grad=True)
    problem = Problem.of(x, taps, causal=(True, False), boundary=("zero", "circular"))
    assert (problem.batch, problem.in_channels, problem.out_channels, problem.depthwise) == (2, 3, 4, False)
    assert (problem.size, problem.kernel_size, problem.origin) == ((8, 9), (5, 6), (0, 3))
    assert (problem.circular, problem.training, problem.device) == ((False, True), True, "cpu")
    assert hash(problem) == hash(Problem.of(x, taps, causal=(True, False), boundary=("zero", "circular")))
    assert not Problem.of(x, taps, training=False).training


def test_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    oc.convolve(torch.ones(1, 1, 8), torch.ones(1, 3))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("boundary", ["zero", "circular"])
def test_results_may_be_changed_in_place(boundary: str, engine: str) -> None:
    for channels in (1, 3):
        x, taps = torch.randn(1, channels, 16, requires_grad=True), torch.randn(channels, 5, requires_grad=True)
        skip_if_refused(engine, x, taps, boundary=boundary)
        y = convolve(x, taps, boundary=boundary, engine=engine)
        y += 1
        y.sum().backward()
        assert y.untyped_storage().nbytes() == y.nbytes


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 3), (16, 1), (16, 5)])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("boundary", ["zero", "circular"])
def test_results_share_no_memory_with_what_they_come_from(
    n: int, k: int, dense: bool, boundary: str, engine: str
) -> None:
    x, taps = torch.randn(1, 2, n, requires_grad=True), torch.randn(*((2, 2) if dense else (2,)), k, requires_grad=True)
    skip_if_refused(engine, x, taps, boundary=boundary)
    y = convolve(x, taps, boundary=boundary, engine=engine)
    cotangent = torch.ones_like(y)
    made = [y, *torch.autograd.grad(y, (x, taps), cotangent)]
    owners = [tensor.untyped_storage().data_ptr() for tensor in (x, taps, cotangent, *made)]
    assert len(set(owners)) == len(owners)


def test_a_problem_has_a_hash_of_its_own_in_every_process() -> None:
    problem = Problem.of(torch.zeros(1, 2, 8), torch.zeros(2, 3))
    known = hash(problem)
    other = pickle.loads(pickle.dumps(problem))
    assert "_hash" not in vars(other)
    assert other == problem
    assert hash(other) == known


def test_symbolic_sizes_are_no_keys() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    x, taps = torch.randn(2, 3, 16), torch.randn(3, 5)
    graph = make_fx(lambda x, taps: convolve(x, taps, causal=True), tracing_mode="symbolic")(x, taps)
    longer = torch.randn(2, 3, 40)
    assert_close(graph(longer, taps), convolve(longer, taps, causal=True))


def test_equal_problems_are_carried_out_by_one_function_whoever_asked_before() -> None:
    """What was asked about such sizes before does not lead to the long way."""
    x, taps = torch.randn(2, 4, 12, 12), torch.randn(4, 3, 3)
    select_engine(Problem.of(x, taps), "auto")
    plan = plan_of_shapes(x.shape, taps.shape, x.dtype, "cpu", (False, False), (False, False), "direct")
    assert plan.launch is not None
    assert plan.differentiable is not None
    assert shorten(taps, plan.problem) is taps
