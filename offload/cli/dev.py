"""`offload dev`: everything on this host, nothing else needed."""

import os
import signal
from contextlib import ExitStack, closing
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from offload import logs
from offload.cli import exits, http_server
from offload.dev.embedded import mark_forgotten, store_environment, surroundings, write_environment
from offload.index import migrate
from offload.metrics_server import serving_metrics
from offload.settings import load_settings
from offload.wiring import adapters, controlling, serving

_HOST = "127.0.0.1"
_GRACE = timedelta(seconds=2)

_TRY = """
In another shell:
  . {env}
  echo '{{"apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun", \
"metadata": {{"name": "first", "namespace": "agents"}}, "spec": {{}}}}' | kubectl apply -f -
  date | offload put - --name hello.txt --run agents/first && kubectl -n agents get agentrun first -o yaml"""


class Store(StrEnum):
    """The object store that is started."""

    SEAWEEDFS = "seaweedfs"
    MOTO = "moto"


def command(
    *,
    port: Annotated[int, typer.Option(help="Port of the service; 0 takes a free one.")] = 8080,
    kube_port: Annotated[int, typer.Option(help="Port of the AgentRun stand-in; 0 takes a free one.")] = 8001,
    data: Annotated[Path, typer.Option(help="Folder that keeps everything.")] = Path(".offload"),
    store: Annotated[Store, typer.Option(help="moto forgets all bytes at exit.")] = Store.SEAWEEDFS,
) -> None:
    """Run service, controller, object store and AgentRun stand-in, on loopback and without tokens."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything started is stopped
    base = load_settings(
        host=_HOST, port=port, auth="none", log_format=os.environ.get("OFFLOAD_LOG_FORMAT", "console")
    )
    logs.configure(level=os.environ.get("OFFLOAD_LOG_LEVEL", "warning"), form=base.log_format)
    with ExitStack() as stack:
        stall = base.upload_stall.total_seconds()
        listener = stack.enter_context(http_server.listen(_HOST, port, stall_seconds=stall))
        url = http_server.address_of(listener)
        around = stack.enter_context(surroundings(data, kube_port=kube_port, store=store.value))
        os.environ.update(store_environment(around.store))
        settings = load_settings(
            host=_HOST,
            port=port,
            auth="none",
            shutdown_grace=_GRACE,
            database_url=around.database_url,
            s3_bucket=around.store.bucket,
            s3_endpoint_url=around.store.endpoint_url,
            s3_addressing="path",
            kubeconfig=around.kubeconfig,
        )
        stack.enter_context(adapters.sole_on_sqlite(settings, "serve"))
        stack.enter_context(adapters.sole_on_sqlite(settings, "controller"))
        migrate.upgrade(around.database_url)
        with closing(adapters.open_index(settings)) as index:
            mark_forgotten(index)
        controller = stack.enter_context(controlling.controlling(settings, stop_within=3))
        stack.enter_context(
            serving_metrics(settings.metrics_host, settings.metrics_port, ready=controller.ready)
        )
        env = data / "dev.env"
        write_environment(env, around, url, settings.retention_file)

        def tell() -> None:
            typer.echo(around.standin.notice)
            if store is Store.MOTO:
                typer.echo("moto keeps all bytes in memory: they are gone at exit")
            typer.echo(f"url={url}\ns3={around.store.endpoint_url}\nkubeconfig={around.kubeconfig}")
            typer.echo(_TRY.format(env=env))

        configured = http_server.config(serving.make_app(settings), grace_seconds=_GRACE.total_seconds())
        if not http_server.run(configured, listener, started=tell):
            raise typer.Exit(exits.FAILED)
