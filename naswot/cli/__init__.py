"""The command line: ``naswot search``, ``score`` and so on. Each command lies in a file of its own."""

from __future__ import annotations

import importlib
import json
import sys

import click

from naswot import __version__
from naswot.errors import NaswotError

_COMMANDS = (
    "search",
    "train",
    "score",
    "rank",
    "correlate",
    "calibrate",
    "reproduce",
    "report",
    "export",
    "benchmark",
    "list",
)


class _LazyGroup(click.Group):
    """A group that imports a command only when it is used, so that help and completion stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"naswot.cli.{cmd_name}").command
        return command


_EPILOG = """\b
Examples:
  naswot search                               screen 100 NAS-Bench-201 cells on digits
  naswot search -n 1000 --data cifar10        ... 1000 cells on CIFAR-10 (NASWOT_DATA or --data-root says where)
  naswot search --train                       screen, train the best briefly, the finalist fully
  naswot score my_models.py:make_net          score your own model
  naswot rank a.py:net b.py:net hf:vit        compare several
  naswot correlate                            how far can scores be trusted? (a benchmark of our own)
  naswot train ARCH --space darts             really train one architecture
  naswot export ARCH --to mine.py             as plain PyTorch, or mine.onnx
  naswot report runs/NAME                     one page about a run: tables, pictures, settings
  naswot list proxies                         what there is
\b
Tab completion: eval "$(_NASWOT_COMPLETE=bash_source naswot)"   (or zsh_source, fish_source)
Exit codes: 0 done, 1 an error that was explained, 2 wrong usage, 130 stopped by Ctrl-C.
"""


@click.command(cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="naswot")
def cli() -> None:
    """Score and search neural architectures without training them."""


def main() -> None:
    """Entry point: errors of this package become one line and exit code 1, Ctrl-C becomes 130."""
    as_json = "--json" in sys.argv
    try:
        cli(prog_name="naswot", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("naswot: stopped", err=True)
        sys.exit(130)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except NaswotError as error:
        if as_json:
            click.echo(json.dumps({"error": type(error).__name__, "message": str(error)}))
        click.echo(f"naswot: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as in `naswot list | head`
        sys.stderr.close()
        sys.exit(0)
