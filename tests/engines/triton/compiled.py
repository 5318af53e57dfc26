"""Compiles kernels for a graphics processor, without one, in a process that does not interpret them."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SHARED_MEMORY = 227 * 1024
"""Bytes of shared memory that a program may use on the architecture sm_90."""


@dataclass(frozen=True)
class Kernel:
    """A function of a module with the types of its arguments.

    `arguments`: types by name in Triton's notation ("*bf16", "i32", "fp32"). `constants`: the compile-time arguments;
    "tl.bfloat16" and the like stand for dtypes. Others are compiled in too, as Triton does with a 1, unless the kernel
    does not allow it. `aligned`: whether addresses are multiples of 16 bytes.
    """

    module: str
    name: str
    arguments: dict[str, str]
    constants: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 2
    aligned: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Compiled:
    """What a program uses: bytes of shared memory, registers per thread, bytes of registers spilled to the stack."""

    shared: int
    registers: int
    stack: int
    assembly: str


def compiled(*kernels: Kernel) -> list[Compiled]:
    """Compile for sm_90; raises with the compiler's words where it fails."""
    process = compiler()
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps([asdict(kernel) for kernel in kernels]), file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        compiler.cache_clear()  # a crash of the compiler is one test's
        raise AssertionError(f"the compiler has ended, with {process.wait()}")
    answer = json.loads(line)
    if "failed" in answer:
        raise AssertionError(answer["failed"][-4000:])
    return [Compiled(**made) for made in answer["made"]]


@functools.cache
def compiler() -> subprocess.Popen[str]:
    """The process that compiles, started once: to import Triton and the library takes longer than most kernels do."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    atexit.register(process.communicate)  # it ends where its input does
    return process


def main() -> None:
    """Answer every line, kernels, by a line: what was made of them, or why it failed."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"made": [made(given) for given in json.loads(line)]}
        except Exception:
            answer = {"failed": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def made(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Compiled`, of the fields of a `Kernel`."""
    import importlib

    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def constant(value: Any) -> Any:
        return getattr(tl, value.removeprefix("tl.")) if isinstance(value, str) and value.startswith("tl.") else value

    kernel = getattr(importlib.import_module(given["module"]), given["name"])
    names = kernel.arg_names
    kept_out = {one.name for one in kernel.params if one.do_not_specialize and not one.is_constexpr}
    constants = {name: constant(value) for name, value in given["constants"].items() if name not in kept_out}
    signature = {name: "constexpr" if name in constants else given["arguments"][name] for name in names}
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in given["aligned"]}
    program = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": given["num_warps"], "num_stages": given["num_stages"]},
    )
    registers, stack = usage(program.asm["cubin"])
    return {"shared": program.metadata.shared, "registers": registers, "stack": stack, "assembly": program.asm["ptx"]}


def usage(binary: bytes) -> tuple[int, int]:
    """Registers per thread and bytes of stack."""
    import triton

    dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary)
        told = subprocess.run([dump, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{name}:(\d+)", told)[1]) for name in ("REG", "STACK"))  # type: ignore[index]
    return registers, stack


if __name__ == "__main__":
    main()
