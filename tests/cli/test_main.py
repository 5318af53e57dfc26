"""How the command ends when nobody waits for its end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from omniconv.cli import main
from omniconv.cli.explain import Explain

pytest.importorskip("tyro")


def test_ctrl_c_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(self: Explain) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Explain, "run", stopped)
    monkeypatch.setattr(sys, "argv", ["omniconv", "explain", "--shape", "8,110,1024", "--kernel", "1024"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip() == "omniconv: stopped by Ctrl-C."


@pytest.mark.parametrize("arguments", [("--help",), ("explain", "--shape", "8,110,1024", "--kernel", "1024")])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = subprocess.run(
            [sys.executable, "-m", "omniconv", *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writing)
    assert process.stderr == ""
    assert process.returncode == 141
