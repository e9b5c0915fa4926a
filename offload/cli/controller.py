"""`offload controller`: publish pointers, watch runs, sweep."""

from contextlib import ExitStack

import typer

from offload import logs
from offload.cli.lines import url_of
from offload.cli.signals import stop_on_signals, wait_for
from offload.metrics_server import serving_metrics
from offload.settings import load_settings
from offload.wiring import adapters, controlling


def command() -> None:
    """Run the controller. Settings come from the environment (docs/settings.md).

    Probes are beside its metrics, on OFFLOAD_METRICS_PORT: /livez and /readyz.
    """
    settings = load_settings()
    logs.configure(level=settings.log_level, form=settings.log_format)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(adapters.sole_on_sqlite(settings, "controller"))
        controller = stack.enter_context(controlling.controlling(settings))
        port = stack.enter_context(
            serving_metrics(settings.metrics_host, settings.metrics_port, ready=controller.ready)
        )
        typer.echo(f"metrics={url_of(settings.metrics_host, port)}/metrics")
        wait_for(stop)
