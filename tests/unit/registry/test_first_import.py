"""What the first import of aiohttp leaves behind, in a process of its own for each test."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

WATCHED = """\
import json, os, ssl, sys, threading
from layertee.registry.first_import import import_aiohttp, leave_certificates_out

method = ssl.SSLContext.set_default_verify_paths
before, seen = dict(os.environ), {}

def others(frame, event, arg):  # while aiohttp makes its contexts
    if event == "call" and frame.f_code.co_name == "_make_ssl_context" and not seen:
        seen["environment"] = dict(os.environ) == before
        def of_thread():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_default_certs()
            seen["certificates"] = context.cert_store_stats()["x509_ca"]
        thread = threading.Thread(target=of_thread)
        thread.start()
        thread.join()

leave_certificates_out()
sys.setprofile(others)
import_aiohttp()
sys.setprofile(None)
import_aiohttp()
import aiohttp.connector
after = ssl.create_default_context().cert_store_stats()["x509_ca"]
print(json.dumps({
    **seen,
    "aiohttp": aiohttp.connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509_ca"],
    "after": after,
    "restored": ssl.SSLContext.set_default_verify_paths is method,
}))
"""


def run(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_only_the_contexts_of_aiohttp_are_without_certificates() -> None:
    found = run(WATCHED)
    assert found["after"] > 0, "this machine has CA certificates"
    assert found == {
        "environment": True,
        "certificates": found["after"],
        "aiohttp": 0,
        "after": found["after"],
        "restored": True,
    }


def test_nothing_happens_to_an_aiohttp_that_is_there_already() -> None:
    found = run(
        "import json, aiohttp.connector as c\n"
        "from layertee.registry.first_import import import_aiohttp, leave_certificates_out\n"
        "leave_certificates_out()\n"
        "import_aiohttp()\n"
        "print(json.dumps(c._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509_ca']))"
    )
    assert found > 0


def test_a_command_that_is_called_as_a_function_leaves_aiohttp_its_certificates() -> None:
    found = run(
        "import json, contextlib, io, signal, sys\n"
        "from layertee.cli.main import main\n"
        "hooks = sys.excepthook, signal.getsignal(signal.SIGTERM)\n"
        "with contextlib.redirect_stderr(io.StringIO()):\n"
        "    assert main(['inspect', 'Not A Reference']) == 1\n"
        "assert hooks == (sys.excepthook, signal.getsignal(signal.SIGTERM))\n"
        "assert 'aiohttp' not in sys.modules\n"
        "from layertee.registry.first_import import import_aiohttp\n"
        "import_aiohttp()\n"
        "import aiohttp.connector as c\n"
        "print(json.dumps(c._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509_ca']))"
    )
    assert found > 0
