"""The command `omniconv`: every subcommand is a dataclass, and its fields are the options."""

from __future__ import annotations

import sys
from typing import Any

from omniconv._errors import CheckpointError, Interrupted, NonFiniteError, StepMemoryError, require

__all__ = ["main"]


def main() -> None:
    """Run the subcommand that the arguments name.

    Exit codes: 0 done; 1 a mistake of the user, or data that cannot be used, told in one line; 2 an option that does
    not exist; 75 stopped early by SIGTERM, SIGUSR1 or a time limit, with a checkpoint to resume from.
    """
    try:
        tyro: Any = require("tyro", extra="cli", purpose="the command omniconv")
        from omniconv.cli._config import check_given, with_config
        from omniconv.cli.bench import Bench
        from omniconv.cli.demo import Demo
        from omniconv.cli.explain import Explain
        from omniconv.cli.fit import Fit
        from omniconv.cli.lm import LanguageModel
        from omniconv.cli.models import Cite, Info
        from omniconv.cli.predict import Evaluate, Predict
        from omniconv.cli.resume import Resume
        from omniconv.cli.stream import Stream
        from omniconv.cli.tune import Tune

        commands: dict[str, Any] = {
            "fit": Fit,
            "evaluate": Evaluate,
            "predict": Predict,
            "resume": Resume,
            "stream": Stream,
            "lm": LanguageModel,
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
        command.run()
    except Interrupted as stop:
        from omniconv.training import EXIT_CODE

        sys.stderr.write(f"omniconv: {stop}\n")
        sys.exit(EXIT_CODE)
    except (CheckpointError, ImportError, NonFiniteError, OSError, StepMemoryError, ValueError, TypeError) as error:
        sys.exit(f"omniconv: {error}")
