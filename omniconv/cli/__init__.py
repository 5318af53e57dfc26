"""The command `omniconv`: every subcommand is a dataclass, and its fields are the options."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import fields, is_dataclass
from typing import Any

from omniconv._errors import CheckpointError, Interrupted, NonFiniteError, StepMemoryError, require

__all__ = ["main"]

READER_GONE = 141
"""What shells call the end of a program that SIGPIPE stopped: 128 + 13."""


def main() -> None:
    """Run the subcommand that the arguments name.

    Exit codes: 0 done; 1 a mistake of the user, or data that cannot be used, told in one line; 2 an option that does
    not exist; 75 stopped early by Ctrl-C, SIGTERM, SIGUSR1 or a time limit, with a checkpoint to resume from; 130
    stopped by Ctrl-C where nothing is to be resumed; 141 nobody reads on what is printed.
    """
    command: Any = None
    try:
        try:
            command = asked()
            command.run()
        finally:
            sys.stdout.flush()  # Python would do it when it ends, and complain there of a reader that is gone
    except Interrupted as stop:
        from omniconv.training import EXIT_CODE

        sys.stderr.write(f"omniconv: {stop}\n")
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"omniconv: stopped by Ctrl-C{f': {stop}' if str(stop) else ''}.\n")
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to print goes nowhere
        sys.exit(READER_GONE)
    except (CheckpointError, ImportError, NonFiniteError, OSError, StepMemoryError, ValueError, TypeError) as error:
        sys.exit(f"omniconv: {in_options(str(error), command)}")


def asked() -> Any:
    """The subcommand that the arguments name, with its options."""
    tyro: Any = require("tyro", extra="cli", purpose="the command omniconv")
    from omniconv.cli._config import check_given, with_config
    from omniconv.cli.bench import Bench
    from omniconv.cli.demo import Demo
    from omniconv.cli.explain import Explain
    from omniconv.cli.export import Export
    from omniconv.cli.fit import Fit
    from omniconv.cli.lm import LanguageModel
    from omniconv.cli.models import Cite, Info
    from omniconv.cli.predict import Evaluate, Predict
    from omniconv.cli.resume import Resume
    from omniconv.cli.stream import Stream
    from omniconv.cli.symmetry import Symmetry
    from omniconv.cli.tune import Tune

    commands: dict[str, Any] = {
        "fit": Fit,
        "evaluate": Evaluate,
        "predict": Predict,
        "resume": Resume,
        "stream": Stream,
        "symmetry": Symmetry,
        "lm": LanguageModel,
        "export": Export,
        "info": Info,
        "cite": Cite,
        "explain": Explain,
        "bench": Bench,
        "tune": Tune,
        "demo": Demo,
    }
    arguments = sys.argv[1:]
    configured, options = with_config(Fit, arguments[1:]) if arguments[:1] == ["fit"] else (None, [])
    if configured is not None:
        command = tyro.cli(Fit, default=configured, args=options, prog="omniconv fit")
    else:
        command = tyro.extras.subcommand_cli_from_dict(
            commands, prog="omniconv", description="One convolution for every signal.", args=arguments
        )
    if configured is not None:
        check_given(command)
    return command


def in_options(message: str, command: Any) -> str:
    """A message of the library in the words of the command line: `missing="mean"` is --missing mean there.

    >>> from pathlib import Path
    >>> from omniconv.cli.fit import Fit
    >>> in_options('Use missing="mean", or name it with target=.', Fit(data="", out=Path()))
    'Use --missing mean, or name it with --target.'
    """
    for option in fields(command) if is_dataclass(command) else ():
        name = f"--{option.name.replace('_', '-')}"
        message = re.sub(rf'\b{option.name}="([^"]*)"', rf"{name} \1", message)
        message = re.sub(rf"\b{option.name}=(?=\W|$)(?![\"'(\[{{])", name, message)
    return message
