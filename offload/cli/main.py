"""The command `offload`: which commands there are, and what their failures look like."""

import traceback
from typing import Annotated, Any

import typer

from offload import __version__
from offload.cli import exits
from offload.cli.lazy import LazyGroup, Listed, missing_extra
from offload.cli.lines import notice
from offload.errors import OffloadError

_CLIENT = "For runners and operators"
_SERVER = "The service"
_RETENTION = "Retention and access"

COMMANDS = {
    "put": Listed("offload.cli.put", "Send files, folders or standard input to an AgentRun.", _CLIENT),
    "runs": Listed("offload.cli.runs", "List AgentRuns and what they produced.", _CLIENT),
    "history": Listed("offload.cli.history", "List everything a run produced, with its fate.", _CLIENT),
    "explain": Listed("offload.cli.explain", "Show what status lists, and why the rest is not.", _CLIENT),
    "get": Listed("offload.cli.get", "Fetch an artifact, verified.", _CLIENT),
    "dev": Listed("offload.cli.dev", "Run everything on this host: service, store, stand-in.", _SERVER),
    "demo": Listed("offload.cli.demo", "Show the main job on real input.", _SERVER),
    "serve": Listed("offload.cli.serve", "Run the HTTP service.", _SERVER),
    "controller": Listed("offload.cli.controller", "Publish pointers, watch runs, sweep.", _SERVER),
    "migrate": Listed("offload.cli.migrate", "Bring the index to this release's schema.", _SERVER),
    "doctor": Listed("offload.cli.doctor", "Check what works, with a remedy for what does not.", _SERVER),
    "standin": Listed("offload.cli.standin", "Run the AgentRun stand-in alone.", _SERVER),
    "retention": Listed("offload.cli.retention", "Check retention rules, preview what they end.", _RETENTION),
    "sweep": Listed("offload.cli.sweep", "Carry the retention plan out.", _RETENTION),
    "orphans": Listed("offload.cli.orphans", "Remove objects that no row names.", _RETENTION),
    "token": Listed("offload.cli.token", "Create access tokens.", _RETENTION),
}


class Offload(LazyGroup):
    """All commands. Ends a failed one with one line on standard error and its exit code."""

    listed = COMMANDS

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            notice("interrupted")
            raise typer.Exit(exits.INTERRUPTED) from None
        except OffloadError as error:
            _show_traceback_if_asked(ctx)
            notice(str(error))
            raise typer.Exit(exits.code_of(error)) from error
        except ModuleNotFoundError as error:
            _show_traceback_if_asked(ctx)
            extra = missing_extra(error)
            if extra is None:
                notice(f"this installation is damaged: {error}")
            else:
                notice(f"this command needs more packages: pip install '.[{extra}]' in a checkout ({error})")
            raise typer.Exit(exits.USAGE) from error
        except (BrokenPipeError, typer.Exit, typer.Abort):
            raise
        except OSError as error:
            _show_traceback_if_asked(ctx)
            notice(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            raise typer.Exit(exits.FAILED) from error
        except Exception as error:
            if _is_usage_error(error):
                raise
            _show_traceback_if_asked(ctx)
            notice(f"unexpected {type(error).__name__}: {error}; --debug shows where")
            raise typer.Exit(exits.FAILED) from error


app = typer.Typer(
    cls=Offload,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"offload {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="OFFLOAD_DEBUG", help="Show a traceback when something fails.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Artifacts of AgentRuns: send them, list them, fetch them, and run the service that keeps them."""


def main() -> None:
    """Run the command line."""
    app(prog_name="offload")


def _show_traceback_if_asked(ctx: Any) -> None:
    if ctx.params.get("debug"):
        traceback.print_exc()


def _is_usage_error(error: Exception) -> bool:
    # Typer brings its own copy of click in some releases and imports click in others; this is all they share.
    return hasattr(error, "exit_code") and hasattr(error, "format_message")


if __name__ == "__main__":
    main()
