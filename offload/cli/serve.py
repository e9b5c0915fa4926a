"""`offload serve`: the HTTP service."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from offload.cli import exits
from offload.settings import Settings, load_settings


def command(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on (OFFLOAD_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (OFFLOAD_PORT).")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the port; PostgreSQL only (OFFLOAD_WORKERS).")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Print the settings in force, and stop.")] = False,
) -> None:
    """Run the HTTP service. Settings come from the environment (docs/settings.md)."""
    settings = load_settings(host=host, port=port, workers=workers)
    settings.check_exposure(settings.host)
    if check:
        for name, value in settings.effective().items():
            typer.echo(f"{name}={value}")
        return
    with ExitStack() as stack:
        if settings.workers > 1:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="offload-metrics-")))
            # Before the first metric is made: they choose where to keep their values as they are made.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        _serve(settings, stack)


def _serve(settings: Settings, stack: ExitStack) -> None:
    from offload import logs  # noqa: PLC0415 - after the metrics' folder is chosen
    from offload.cli import http_server  # noqa: PLC0415
    from offload.metrics_server import serving_metrics  # noqa: PLC0415
    from offload.wiring import adapters, serving  # noqa: PLC0415

    logs.configure(level=settings.log_level, form=settings.log_format)
    serving.check_start(settings)
    stack.enter_context(adapters.sole_on_sqlite(settings, "serve"))
    stall = settings.upload_stall.total_seconds()
    listener = stack.enter_context(http_server.listen(settings.host, settings.port, stall_seconds=stall))
    stack.enter_context(serving_metrics(settings.metrics_host, settings.metrics_port))
    url = http_server.address_of(listener)
    grace = settings.shutdown_grace.total_seconds()
    if settings.workers > 1:
        configured = http_server.config(
            "offload.wiring.serving:app_of_worker", grace_seconds=grace, workers=settings.workers
        )
        served = http_server.run_workers(configured, listener, started=lambda: typer.echo(f"url={url}"))
    else:
        configured = http_server.config(serving.make_app(settings), grace_seconds=grace)
        serving.keep_what_is_loaded()
        served = http_server.run(configured, listener, started=lambda: typer.echo(f"url={url}"))
    if not served:
        raise typer.Exit(exits.FAILED)
