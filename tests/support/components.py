"""The real components that tests and the demo run beside us: one door to the rooms behind it.

    with ApiServer() as api, S3Server() as s3:
        use(api.kubeconfig, s3.endpoint_url, s3.bucket("backups"))

`tools` finds what tests/tools/build.sh has built, `processes` keeps children from outliving us, `pki` makes certificates, `api_server` and
`s3_server` start the real thing. None of them imports longshore. Callers that are not pytest call `interrupt_on_sigterm` first.
"""

from tests.support.api_server import ApiServer
from tests.support.processes import ComponentFailedError, interrupt_on_sigterm
from tests.support.s3_server import S3Server
from tests.support.tools import ComponentMissingError, find_tool, require_tool, tools_dir

__all__ = [
    "ApiServer",
    "ComponentFailedError",
    "ComponentMissingError",
    "S3Server",
    "find_tool",
    "interrupt_on_sigterm",
    "require_tool",
    "tools_dir",
]
