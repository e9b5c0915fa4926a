"""The service against the control plane of these tests.

- an artifact's pointer reaches the status, with the service's processes as their service accounts
"""

from tests.kube.site import KubeSite
from tests.programs import until


def test_a_pointer_reaches_the_status(kube_site: KubeSite) -> None:
    kube_site.all()
    stage = kube_site.stage
    stage.create_run("demo")
    assert stage.put("demo", "log", b"hello").status_code == 201
    until(lambda: stage.names("demo") == ["log"])
