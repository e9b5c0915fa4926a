"""`offload doctor`, on SQLite, SeaweedFS and the AgentRun stand-in.

Cases: all is well and nothing stays behind; wrong credentials, a bucket that is missing, a store that
hangs; an index that is missing, has no tables, is newer, is out of reach with a password; an API server
that is down, a schema that keeps nothing, one that lowers the cap, permissions that are refused; AgentRuns
that break the limits; a controller beside this one with other limits; whose the prefix is; settings that
are risky or unusable; each check by itself: errors, silence, secrets; the command's exit codes and its
JSON; dirty runs, plans and watches of namespaces that are not watched.
"""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from offload.cli.main import app
from offload.cluster.standin import StandIn
from offload.dev.stores import SeaweedFS, StoreAddress
from offload.domain.artifact import Location, NewArtifact
from offload.domain.keys import MARKER
from offload.domain.run import SeenRun
from offload.errors import StoreUnavailableError
from offload.index import Index, leases, migrate, publishing, runs, sweeping
from offload.index.recording import record_all
from offload.objects.s3 import S3Objects
from offload.services.doctor import Check, Finding, State, examine, is_broken
from offload.services.doctor.beside import BesidePart
from offload.services.doctor.findings import Verdict, ok
from offload.services.doctor.index import IndexPart
from offload.services.doctor.store import judge_clock
from offload.services.orphans import claim_prefix
from offload.services.sweep import WATCH, job_of, scope_of
from offload.settings import load_settings
from offload.wiring import adapters, checkup
from tests.publishing import migrated_index

DEPLOYMENT = {
    "spec": {
        "template": {
            "spec": {"containers": [{"env": [{"name": "JANGAR_AGENTRUN_ARTIFACTS_MAX", "value": "20"}]}]}
        }
    }
}
Doctor = Callable[..., dict[tuple[str, str], Finding]]


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    data = tmp_path_factory.mktemp("doctor-store")
    store = SeaweedFS(data)
    try:
        yield store.start()
    finally:
        store.stop(keep_data=False)
        shutil.rmtree(data)


@pytest.fixture
def surroundings(
    seaweedfs: StoreAddress, standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The environment of a service of which everything works; its folder."""
    url = f"sqlite:///{tmp_path}/index.db"
    migrate.upgrade(url)
    (tmp_path / "tokens.yaml").write_text("tokens: []\n")
    (tmp_path / "rules.yaml").write_text("default: {keepFor: 30d}\n")
    for name, value in {
        "OFFLOAD_DATABASE_URL": url,
        "OFFLOAD_TOKENS_FILE": f"{tmp_path}/tokens.yaml",
        "OFFLOAD_S3_BUCKET": seaweedfs.bucket,
        "OFFLOAD_S3_PREFIX": tmp_path.name,
        "OFFLOAD_S3_ENDPOINT_URL": seaweedfs.endpoint_url,
        "OFFLOAD_S3_ADDRESSING": "path",
        "OFFLOAD_KUBECONFIG": standin.kubeconfig,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
        "AWS_REGION": seaweedfs.region,
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def doctor(surroundings: Path) -> Doctor:  # noqa: ARG001 - the environment is what is examined
    """Examine, with these settings other than they should be."""

    def examined(**other: Any) -> dict[tuple[str, str], Finding]:
        findings = checkup.checkup(load_settings(**other))
        return {(finding.part, finding.check): finding for finding in findings}

    return examined


@pytest.fixture
def objects(seaweedfs: StoreAddress) -> Iterator[S3Objects]:
    adapter = S3Objects(seaweedfs.connection())
    yield adapter
    adapter.close()


def parts_of(findings: Mapping[tuple[str, str], Finding], state: State) -> set[str]:
    return {part for (part, _), finding in findings.items() if finding.state is state}


def test_all_is_well_and_nothing_stays_behind(doctor: Doctor, objects: S3Objects, surroundings: Path) -> None:
    found = doctor()
    assert not is_broken(found.values()), found
    warned = {check for (_, check), finding in found.items() if finding.state is State.WARNING}
    assert warned <= {"retention", "abort rule", "lifecycle", "versioning", "watch"}
    assert (
        found["store", "prefix"].found
        == f"'{surroundings.name}' is unused; `offload serve` marks it as its own"
    )
    assert found["store", "clock"].found == "the same as this host's"
    assert found["cluster", "schema"].found == "keeps native and legacy pointers; at most 50 are listed"
    assert found["cluster", "patch agentruns/status"].state is State.OK
    assert all(finding.remedy for finding in found.values() if finding.state is not State.OK)
    assert list(objects.list(surroundings.name)) == []
    assert list(objects.open_uploads(surroundings.name)) == []


def test_wrong_credentials_break_the_store_alone(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-another")
    found = doctor()
    assert parts_of(found, State.BROKEN) == {"store"}
    assert found["store", "bucket"].state is State.BROKEN
    assert "SignatureDoesNotMatch" in found["store", "write"].found
    assert "s3:PutObject" in found["store", "write"].remedy
    assert found["store", "clock"].state is State.OK  # a refusal tells the time as well
    assert "a-secret-of-another" not in repr(found)


def test_a_missing_bucket_is_named(doctor: Doctor) -> None:
    found = doctor(s3_bucket="nobody-made-it")
    assert found["store", "bucket"].found == "there is no bucket 'nobody-made-it'"
    assert "OFFLOAD_S3_BUCKET" in found["store", "bucket"].remedy
    assert parts_of(found, State.BROKEN) == {"store"}


def test_a_store_that_hangs_is_told_in_time(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        found = doctor(s3_endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 12
    assert found["store", "bucket"].state is State.BROKEN
    assert parts_of(found, State.BROKEN) == {"store"}


def test_a_missing_index_is_not_made(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(database_url=f"sqlite:///{tmp_path}/none.db")
    assert found["index", "revision"].remedy == "offload migrate"
    assert parts_of(found, State.BROKEN) == {"index", "store"}  # whose the prefix is cannot be told
    assert not (tmp_path / "none.db").exists()


def test_an_index_without_tables_is_reached_and_needs_migrate(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    found = doctor(database_url=f"sqlite:///{tmp_path}/empty.db")
    assert found["index", "reachable"].state is State.OK
    assert found["index", "revision"].state is State.BROKEN
    assert found["index", "revision"].remedy == "offload migrate"
    assert "no such table" in found["index", "write"].found


def test_an_index_of_a_newer_release_is_told_by_its_revision(doctor: Doctor, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/index.db")
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        tx.execute(sa.text("UPDATE meta SET readable_by = '9999'"))
    assert "9999" in doctor()["index", "revision"].found
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE meta SET readable_by = :head"), {"head": migrate.head()})
    engine.dispose()
    found = doctor()["index", "revision"]
    assert (found.state, found.found) == (
        State.OK,
        f"at 9999, which this release ({migrate.head()}) can use",
    )


def test_an_index_out_of_reach_says_why_and_no_password(doctor: Doctor) -> None:
    found = doctor(database_url=f"postgresql://ours:p%40ss-word@127.0.0.1:{free_port()}/offload")
    assert "refused" in found["index", "reachable"].found
    assert "OFFLOAD_DATABASE_URL" in found["index", "reachable"].remedy
    assert "ss-word" not in repr(found)
    assert found["cluster", "reachable"].state is State.OK


def test_a_cluster_that_is_down_breaks_the_cluster_alone(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(kubeconfig=kubeconfig_of(f"http://127.0.0.1:{free_port()}", tmp_path))
    assert parts_of(found, State.BROKEN) == {"cluster"}
    assert "GET /version" in found["cluster", "reachable"].found


def test_no_kubernetes_configuration_is_a_finding(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(kubeconfig=tmp_path / "none")
    assert parts_of(found, State.BROKEN) == {"cluster"}
    assert "no usable Kubernetes configuration" in found["cluster", "reachable"].found


LEGACY = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name"],
        "properties": {f: {"type": "string"} for f in ("name", "path", "key", "url")},
    },
}
CONDITIONS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["type", "status", "observedGeneration"],
        "properties": {
            "type": {"type": "string"},
            "status": {"type": "string"},
            "observedGeneration": {"type": "integer"},
        },
    },
}


@pytest.mark.parametrize(
    ("status", "found", "state", "lost"),
    [
        (
            {"phase": {"type": "string"}},
            "the served AgentRun schema has no status.artifacts",
            State.BROKEN,
            None,
        ),
        (
            {"artifacts": {**LEGACY, "maxItems": 20}},
            "keeps legacy pointers; at most 20 are listed: the schema lowers the setting of 50",
            State.WARNING,
            "drops or refuses status.conditions, status.phase, status.reason, status.finishedAt: ",
        ),
        (
            {
                "artifacts": LEGACY,
                "conditions": CONDITIONS,
                "phase": {"type": "string", "enum": ["Running", "Succeeded"]},
                "reason": {"type": "string"},
                "finishedAt": {"type": "string"},
            },
            "keeps legacy pointers; at most 50 are listed",
            State.OK,
            "drops or refuses status.conditions, status.phase: ",
        ),
    ],
)
def test_the_served_schema_says_what_is_kept(
    doctor: Doctor, tmp_path: Path, status: dict[str, Any], found: str, state: State, lost: str | None
) -> None:
    crd = yaml.safe_load(Path("deploy/crd/agentruns.yaml").read_text())
    for version in crd["spec"]["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        schema.pop("x-kubernetes-preserve-unknown-fields", None)
        schema["properties"]["status"] = {"type": "object", "properties": status}
    (tmp_path / "crd.yaml").write_text(yaml.safe_dump(crd))
    with StandIn(crd=tmp_path / "crd.yaml").running() as other:
        findings = doctor(kubeconfig=Path(other.kubeconfig), artifacts_strict=True)
    schema_finding = findings["cluster", "schema"]
    assert (schema_finding.found, schema_finding.state) == (found, state)
    if lost:
        assert findings["cluster", "schema of conditions"].found.startswith(lost)


def test_refused_permissions_are_named_one_by_one(doctor: Doctor, tmp_path: Path) -> None:
    def allowed(spec: Mapping[str, Any]) -> bool:
        asked = spec.get("resourceAttributes", {})
        return asked.get("subresource") != "status" and asked.get("resource") != "events"

    with api_server(allowed) as url:
        config = kubeconfig_of(url, tmp_path)
        found = doctor(kubeconfig=config)
        observing = doctor(kubeconfig=config, publish="observe")
    assert found["cluster", "reachable"].found == "v1.37.0 answers"
    assert found["cluster", "patch agentruns/status"].state is State.BROKEN
    assert found["cluster", "patch agentruns/status"].remedy.startswith("grant it as deploy/base does")
    assert found["cluster", "create events"].state is State.WARNING
    assert found["cluster", "watch agentruns"].state is State.OK
    assert observing["cluster", "patch agentruns/status"].state is State.WARNING


def test_violating_runs_are_counted_by_what_is_wrong(doctor: Doctor) -> None:
    fine = [{"name": f"log-{place}", "url": f"s3://bucket/{place}"} for place in range(50)]
    inline, long = {"name": "log", "path": "DATA:,x"}, {"name": "log", "url": "s3://" + "x" * 2048}
    statuses = {
        "run-000": [*fine, inline],
        "run-001": [inline, long],
        "run-249": [long],
        "run-250": [fine[0], inline],
        "run-251": fine,
    }
    with StandIn(crd=Path("tests/cluster/crds/early.yaml")).running() as other:
        with httpx.Client(base_url=other.url) as client:
            for number in range(252):
                create_run(client, f"run-{number:03}", statuses.get(f"run-{number:03}"))
        found = doctor(kubeconfig=Path(other.kubeconfig), publish="observe")["cluster", "violating runs"]
        assert found.state is State.WARNING
        assert found.found == (
            "4 violating runs of 252: 1 over 50 entries, 3 with inline data, 2 with over-long URIs "
            "(agents/run-000, agents/run-001, agents/run-249, …)"
        )
        assert "OFFLOAD_PUBLISH=on" in found.remedy
        elsewhere = doctor(kubeconfig=Path(other.kubeconfig), namespaces=("other", "empty"))
        assert elsewhere["cluster", "violating runs"].found == "0 violating runs of 0"


@pytest.mark.parametrize(
    ("container", "cap", "strict"),
    [
        ({}, (State.OK, "50 in both"), (State.OK, "false in both")),
        (
            {"env": [{"name": "AGENTS_AGENTRUN_ARTIFACTS_MAX", "value": "20"}]},
            (State.WARNING, "'20' there, 50 here"),
            (State.OK, "false in both"),
        ),
        (
            {
                "env": [
                    {"name": "OTHER"},
                    {"name": "JANGAR_AGENTRUN_ARTIFACTS_MAX", "value": "50"},
                    {"name": "JANGAR_AGENTRUN_ARTIFACTS_STRICT", "valueFrom": {"configMapKeyRef": {}}},
                ]
            },
            (State.OK, "50 in both"),
            (State.WARNING, "set there by a ConfigMap or Secret, which was not read; false here"),
        ),
        (
            {
                "env": [{"name": "JANGAR_AGENTRUN_ARTIFACTS_STRICT", "value": "True"}],
                "envFrom": [{"configMapRef": {"name": "settings"}}],
            },
            (State.WARNING, "set there by a ConfigMap or Secret, which was not read; 50 here"),
            (State.WARNING, "'True' there, false here"),
        ),
    ],
)
def test_limits_are_compared_with_those_of_the_controller_beside(
    container: dict[str, Any], cap: tuple[State, str], strict: tuple[State, str]
) -> None:
    deployment = {"spec": {"template": {"spec": {"containers": [{"name": "sidecar"}, container]}}}}
    findings = examine(BesidePart(deployment, 50, artifacts_strict=False).checks())
    assert {one.check.rpartition("_")[2]: (one.state, one.found) for one in findings} == {
        "MAX": cap,
        "STRICT": strict,
    }


@pytest.mark.parametrize("other", [{}, [], "text", {"kind": "List", "items": []}])
def test_what_is_no_deployment_is_told(other: object) -> None:
    [finding] = examine(BesidePart(other, 50, artifacts_strict=False).checks())
    assert (finding.state, finding.found) == (State.BROKEN, "this is no Deployment")


def test_a_prefix_is_ours_or_anothers_or_unmarked(
    doctor: Doctor, objects: S3Objects, surroundings: Path
) -> None:
    prefix = surroundings.name
    objects.write(f"{prefix}/something", b"x")
    unmarked = doctor()["store", "prefix"]
    assert unmarked.state is State.WARNING
    assert "offload orphans --claim" in unmarked.remedy

    index = adapters.open_index(load_settings())
    claim_prefix(index, objects, prefix=prefix, anyway=True)
    index.close()
    assert doctor()["store", "prefix"].found == f"'{prefix}' is this index's own"

    objects.write(f"{prefix}/{MARKER}", b"another")
    foreign = doctor()["store", "prefix"]
    assert foreign.state is State.BROKEN
    assert "OFFLOAD_S3_PREFIX" in foreign.remedy
    assert "stays until somebody says offload orphans --beyond-guard" in foreign.remedy


def test_an_empty_prefix_where_the_index_has_artifacts_is_another_stores(
    doctor: Doctor, surroundings: Path
) -> None:
    assert doctor()["store", "prefix"].state is State.OK
    index = adapters.open_index(load_settings())
    stored(index, Location(load_settings().s3_bucket, f"{surroundings.name}/agents/run/uid/id/name"))
    index.close()

    emptied = doctor()["store", "prefix"]

    assert emptied.state is State.BROKEN
    assert "is empty, and the index has artifacts there" in emptied.found
    assert "OFFLOAD_S3_ENDPOINT_URL" in emptied.remedy
    assert "offload orphans --claim, and each is lost once it is read" in emptied.remedy


def stored(index: Index, location: Location) -> None:
    """A row of an artifact whose bytes should be there."""
    new = NewArtifact(
        id=uuid4(),
        run_uid="uid",
        name="name",
        type="log",
        content_type="text/plain",
        size_bytes=1,
        sha256=bytes(32),
        location=location,
        stored_since=datetime.now(UTC),
    )
    with index.begin() as tx:
        runs.observe(tx, SeenRun("uid", "agents", "run", datetime.now(UTC)))
        record_all(tx, [new], grace=timedelta(hours=1), again=False)


def test_risky_settings_are_warnings(doctor: Doctor) -> None:
    found = doctor(auth="none", artifacts_max=200, publish="off")
    for check in ("access", "limits", "publish", "retention"):
        assert found["settings", check].state is State.WARNING, check
    assert not parts_of(found, State.BROKEN)
    with_rules = doctor(retention_file=Path(load_settings().tokens_file or "").with_name("rules.yaml"))
    assert with_rules["settings", "retention"].found


def test_a_controller_needs_no_token_file(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFLOAD_TOKENS_FILE")
    access = doctor()["settings", "access"]
    assert access.state is State.WARNING
    assert "OFFLOAD_TOKENS_FILE" in access.remedy


def test_unusable_files_are_broken(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("default: {keepFor: soon}\n")
    found = doctor(tokens_file=tmp_path / "none", retention_file=tmp_path / "wrong.yaml")
    assert found["settings", "access"].state is State.BROKEN
    assert found["settings", "retention"].state is State.BROKEN
    assert doctor(auth="none", host="0.0.0.0")["settings", "access"].state is State.BROKEN


def test_each_check_is_by_itself() -> None:
    never = threading.Event()

    def halfway() -> Iterator[Verdict]:
        yield ok("began")
        raise StoreUnavailableError("the key is hunter2")

    def silent() -> Iterator[Verdict]:
        never.wait()
        yield ok("late")

    def wrong() -> Iterator[Verdict]:
        raise ValueError("7")

    checks = [
        Check("a", "silent", silent, "wake it", patience=0.2),
        Check("a", "halfway", halfway, "mend it"),
        Check("b", "wrong", wrong, ""),
        Check("b", "fine", lambda: [ok("yes")], ""),
    ]
    found = examine(checks, secrets=["hunter2"])
    never.set()
    assert found == [
        Finding("a", "silent", State.BROKEN, "no answer within 0.2 s", "wake it"),
        Finding("a", "halfway", State.OK, "began", ""),
        Finding("a", "halfway", State.BROKEN, "the key is ***", "mend it"),
        Finding("b", "wrong", State.BROKEN, "unexpected ValueError: 7", ""),
        Finding("b", "fine", State.OK, "yes", ""),
    ]


@pytest.mark.parametrize(
    ("seconds", "state", "found"),
    [
        (1, State.OK, "the same as this host's"),
        (-20, State.OK, "20 s behind this host's"),
        (90, State.WARNING, "90 s ahead of this host's"),
        (-1000, State.BROKEN, "1000 s behind this host's: requests are refused"),
    ],
)
def test_another_clock_matters_from_a_minute_on(seconds: int, state: State, found: str) -> None:
    verdict = judge_clock(timedelta(seconds=seconds), refused_from=timedelta(minutes=15))
    assert (verdict.state, verdict.found) == (state, found)


@pytest.mark.usefixtures("surroundings")
def test_the_command_prints_a_table_or_json_and_fails_only_where_something_is_broken(
    monkeypatch: pytest.MonkeyPatch, seaweedfs: StoreAddress
) -> None:
    run = CliRunner()
    well = run.invoke(app, ["doctor"])
    assert well.exit_code == 0, well.output
    assert "0 broken" in well.output
    assert seaweedfs.secret_key not in well.output

    monkeypatch.setenv("OFFLOAD_S3_BUCKET", "nobody-made-it")
    ill = run.invoke(app, ["doctor", "--json"])
    answer = json.loads(ill.stdout)
    assert (ill.exit_code, answer["broken"]) == (1, True)
    assert {"part", "check", "state", "found", "remedy"} == answer["findings"][0].keys()

    beside = run.invoke(app, ["doctor", "--beside", "-"], input=json.dumps(DEPLOYMENT))
    assert "'20' there, 50 here" in beside.output
    assert run.invoke(app, ["doctor", "--beside", "-"], input="{").exit_code == 2
    assert run.invoke(app, ["doctor", "--beside", "-"], input="").exit_code == 1

    monkeypatch.setenv("OFFLOAD_PORT", "many")
    unusable = run.invoke(app, ["doctor"])
    assert unusable.exit_code == 1
    assert "OFFLOAD_PORT" in unusable.output


def create_run(client: httpx.Client, name: str, artifacts: list[dict[str, Any]] | None) -> None:
    runs = "/apis/agents.proompteng.ai/v1alpha1/namespaces/agents/agentruns"
    run = {
        "apiVersion": "agents.proompteng.ai/v1alpha1",
        "kind": "AgentRun",
        "metadata": {"name": name},
        "spec": {"agentRef": {"name": "coder"}},
    }
    client.post(runs, json=run).raise_for_status()
    if artifacts is not None:
        client.patch(
            f"{runs}/{name}/status",
            content=json.dumps({"status": {"artifacts": artifacts}}),
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kubeconfig_of(server: str, folder: Path) -> Path:
    path = folder / "kubeconfig"
    named = {"cluster": {"server": server}, "name": "it"}
    context = {"context": {"cluster": "it", "user": "it"}, "name": "it"}
    user = {"name": "it", "user": {"token": "a-token"}}
    path.write_text(
        yaml.safe_dump({"clusters": [named], "contexts": [context], "users": [user], "current-context": "it"})
    )
    return path


class api_server:  # noqa: N801 - a context, used like a function
    """An API server that knows its version and who may what, and nothing else."""

    def __init__(self, allowed: Callable[[Mapping[str, Any]], bool]) -> None:
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200 if self.path == "/version" else 404, {"gitVersion": "v1.37.0"})

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(201, {"status": {"allowed": allowed(review["spec"])}})

            def _answer(self, status: int, body: Mapping[str, Any]) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_runs_of_namespaces_that_are_not_watched_are_not_behind(tmp_path: Path) -> None:
    with closing(Index.connect(migrated_index(tmp_path))) as index:
        with index.begin() as tx:
            runs.observe(tx, SeenRun("u", "left", "run", datetime.now(UTC)))
            publishing.touch(tx, "u")

        assert verdict_of("publishing", index, "watched").found == "no status is behind"
        assert verdict_of("publishing", index, "watched", "left").found.startswith("1 runs wait")
        assert verdict_of("publishing", index).found.startswith("1 runs wait")


def test_plans_and_watches_of_other_namespaces_are_not_ours(tmp_path: Path) -> None:
    with closing(Index.connect(migrated_index(tmp_path))) as index:
        with index.begin() as tx:
            leases.done(tx, job_of(WATCH, ["b"]))
            plan = {"at": datetime.now(UTC), "count": 101, "bytes": 1, "policy_digest": "abc"}
            parked = sweeping.park(tx, **plan, scope=scope_of(["b"]))
        for namespace, state in (("a", State.WARNING), ("b", State.OK)):
            assert verdict_of("watch", index, namespace).state is state
        assert verdict_of("sweep plans", index, "a").found == "none waits for a person"
        assert str(parked) in verdict_of("sweep plans", index, "b").remedy


def verdict_of(name: str, index: Index, *namespaces: str) -> Verdict:
    checks = IndexPart(lambda: index, publishes=True, namespaces=namespaces).checks()
    [verdict] = next(check.look() for check in checks if check.name == name)
    return verdict
