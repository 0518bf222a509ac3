"""The `panda` command."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pandaserver import __version__
from pandaserver.client import following, grid, sites, submitting, why
from pandaserver.client.api import PandaClient
from pandaserver.client.connection import PAUSES_S
from pandaserver.client.failures import ClientError, ExitCode, WrongUse
from pandaserver.client.proxy import find_proxy
from pandaserver.client.show import Output

CA_DIR = "/etc/grid-security/certificates"
_INTERRUPTED = 130
_EPILOG = """\
examples:
  panda submit jobs.json --wait
  panda submit --transformation ./run.sh --site EXAMPLE_Q --repeat 3
  panda status 101-103
  panda why 101
  panda download user.alice.test1 --to results
  panda sites
  panda sites set EXAMPLE_Q offline --reason "disk full" --until 6h

environment:
  PANDA_URL_SSL    server, such as https://panda.example.org:25443 (a path /server/panda behind it is fine)
  X509_USER_PROXY  proxy file (default: x509up_u<uid> in the directory for temporary files)
  X509_CERT_DIR    directory of trusted CAs (default: /etc/grid-security/certificates)

exit codes:
  0  all went well
  1  what was asked for failed: a job did not finish, the server said no, a file is missing
  2  wrong usage
  3  the server cannot be reached, or it and the user do not accept each other

With --json standard output is one JSON document, also for errors: {"error": {"message", "field", "value"}}.
`panda COMMAND --help` tells more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="panda: %(message)s")
    output = Output(as_json=options.json)
    try:
        with _client(options) as client:
            code: ExitCode = options.run(client, options, output)
            sys.stdout.flush()
            return int(code)
    except ClientError as error:
        output.failure(error)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("panda: interrupted; jobs that were submitted go on", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)


def _client(options: argparse.Namespace) -> PandaClient:
    server = options.server or os.environ.get("PANDA_URL_SSL")
    if not server:
        raise WrongUse("which server? Give --server or set PANDA_URL_SSL", field="server")
    ca_dir = options.ca_dir or os.environ.get("X509_CERT_DIR") or CA_DIR
    proxy = find_proxy(options.proxy, os.environ)
    return PandaClient(server, proxy, ca_dir, pauses_s=PAUSES_S[: options.retries])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "panda",
        description="Submits jobs to a PanDA server, follows them and fetches what they made.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_common(server=None, proxy=None, ca_dir=None, retries=len(PAUSES_S), json=False)],
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for module in (submitting, following, why, sites, grid):
        module.add_commands(commands, _common())
    return parser


def _common(**defaults: Any) -> argparse.ArgumentParser:
    """Declare the options that may stand before the command and behind it; behind, without defaults of their own."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    options = common.add_argument_group("connection and form")
    options.add_argument("--server", metavar="URL", help="PanDA server (PANDA_URL_SSL)")
    options.add_argument("--proxy", metavar="FILE", help="proxy to show (X509_USER_PROXY)")
    options.add_argument("--ca-dir", type=Path, metavar="DIR", help="directory of trusted CAs (X509_CERT_DIR)")
    options.add_argument(
        "--retries", type=int, choices=range(len(PAUSES_S) + 1), help="how often to try again without an answer (4)"
    )
    options.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    common.set_defaults(**defaults)
    return common


if __name__ == "__main__":
    sys.exit(main())
