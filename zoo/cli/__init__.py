"""The command ``zoo``: a file a verb. No torch until a verb needs it, so that ``zoo list`` answers at once.

Exit status: 0; 2 for a mistake of the user's, with a message of one line; 1 for a failure; 130 if interrupted. A
traceback is printed only with ``--debug``.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click

from zoo.allocator import reuse_memory
from zoo.version import __version__

VERBS = ("list", "show", "train", "resume", "sample", "report", "eval", "bench", "data", "export", "publish")


class Verbs(click.Group):
    """The verbs, each imported when it is used: the module ``zoo.cli.VERB`` has the function ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        return importlib.import_module(f"zoo.cli.{name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from zoo.registry import nearest

        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"no command '{args[0]}'{nearest(args[0], VERBS)}; the commands: {', '.join(VERBS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="zoo")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error (at any place).")
def cli() -> None:
    """GANs from their papers: train them, sample them, score them, export their weights."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line ``args`` (by default the process's) and exit with its status."""
    warnings.showwarning = show_warning(warnings.showwarning)
    reuse_memory()
    args = [*(sys.argv[1:] if args is None else args)]  # `list` is the module zoo.cli.list here
    debug = "--debug" in args
    try:
        status = cli.main([a for a in args if a != "--debug"], prog_name="zoo", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # zoo list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (KeyboardInterrupt, click.Abort):
        status = print_error("interrupted", 130)
    except Exception as error:
        if debug and not isinstance(error, click.ClickException):
            raise
        status = explain(error)
    try:
        sys.stdout.flush()
    except OSError:  # a full disk: Python would try again, and report it, at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status if isinstance(status, int) else 0)


def show_warning(before: Callable[..., None]) -> Callable[..., None]:
    """Warnings about data in one line; others as ``before``."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        from zoo.data.images import DataWarning

        if issubclass(category, DataWarning):
            print("zoo: warning:", " ".join(str(message).split()), file=sys.stderr)
        else:
            before(message, category, *place, **more)

    return show


def explain(error: Exception) -> int:
    """Print an error in one line and return its exit status. A group of commands without a command prints its help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message())
        return 0
    if isinstance(error, click.ClickException):
        return print_error(error.format_message(), error.exit_code)
    if isinstance(error, ValueError):
        return print_error(error, 2)
    if isinstance(error, OSError) and error.strerror:
        return print_error(f"{error.filename or 'standard output'}: {error.strerror}", 1)
    if isinstance(error, (OSError, RuntimeError, ImportError)):
        return print_error(error, 1)
    return print_error(f"{type(error).__name__}: {error} (a bug of the zoo; --debug prints the traceback)", 1)


def print_error(message: object, status: int) -> int:
    """Print the message in one line on stderr and return the status."""
    from zoo.cli.output import plain

    text = " ".join(str(message).split()) or type(message).__name__
    print("zoo:", plain(text, lines=False), file=sys.stderr)
    return status
