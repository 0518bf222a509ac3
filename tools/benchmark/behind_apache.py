"""The server behind a private Apache: the project's own configuration, put in place by `panda-server install`."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from benchmark import apache
from benchmark.apache import Apache, Ports, give_to_server
from benchmark.door import Door
from benchmark.people import TOOLS, all_variables
from benchmark.processes import BenchError, free_port
from benchmark.site import Site

NEEDED = ("apache2", "libapache2-mod-wsgi-py3", "gridsite")  # of the packages that tools/test knows

_ENTRY = '''"""The entry of the server under measurement: the installed one, with threads that have names."""
import sys
sys.path[:0] = {paths!r}
from benchmark.naming import name_threads
name_threads()
'''
_PLAIN_ENTRY = '''"""An entrance for test people without certificates, to the same application in the same processes."""
import json
import sys
sys.path[:0] = {paths!r}
from benchmark.people import with_test_people
from pandaserver.wsgi import application as served
with open({people!r}, encoding="ascii") as opened:
    application = with_test_people(served, json.load(opened))
'''
# Port 25080 of an installation is for reading only: plain requests that write need an entrance of their own.
_PLAIN_HOST = """Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
  ServerName localhost:{port}
  ErrorLog "{logs}/plain-error.log"
  CustomLog "{logs}/plain-access.log" panda
  SSLEngine off
  KeepAlive On
  KeepAliveTimeout 30
  MaxKeepAliveRequests 0
  Timeout 120
  WSGIScriptAlias / "{entry}" process-group=panda application-group=%{{GLOBAL}}
  Include "{lib}/panda-common.conf"
</VirtualHost>
"""


def prepare(place: Site, door: Door) -> list[str]:
    """Put Apache in place for one kind of connection; give the command that runs it.

    Raises:
        BenchError: Apache is not here, or its configuration is not good; the text says what to do.
    """
    install_missing()
    home = _apache(place)
    shutil.rmtree(home.root, ignore_errors=True)
    (home.root / "etc/panda").mkdir(parents=True)
    _configure(place, home)
    ports = Ports(tls=place.port if door.tls else free_port(), plain=free_port())
    options = [*apache.install_options(home.root, ports, place.root / "pki"), "--processes", str(place.size.workers)]
    done = apache.panda_server(home.root, "install", *options)
    if done.returncode:
        raise BenchError(f"panda-server install finds faults:\n{done.stdout}{done.stderr}")
    _name_threads(home)
    if not door.tls:
        _add_plain_entrance(place, home)
    return home.command("start", "-D", "FOREGROUND")


def daemon(place: Site) -> int:
    """Give one of the processes in which the application lives."""
    return _apache(place).daemons()[0]


def logs(place: Site) -> list[Path]:
    """Name the logs."""
    root = _apache(place).root
    return [*sorted((root / "var/log/apache2").glob("*error.log")), root / "var/log/panda/server.log"]


def install_missing() -> None:
    """Install Apache and its modules where they are not here, as tools/test does.

    Raises:
        BenchError: this is not for us to do; the text names the command.
    """
    tool = _test_tool()
    missing = [package for package in tool.missing_packages() if package in NEEDED]
    if missing:
        try:
            with tool.no_services_started(tool.POLICY):
                tool.apt_install(missing)
        except tool.SetupError as error:
            raise BenchError(str(error)) from error


def _test_tool() -> ModuleType:
    """Load tools/test, whose list of packages is the only one."""
    loader = SourceFileLoader("panda_tools_test", str(TOOLS / "test"))
    specification = spec_from_loader(loader.name, loader)
    assert specification is not None
    module = module_from_spec(specification)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def _apache(place: Site) -> Apache:
    return Apache(place.root / "httpd")


def _configure(place: Site, home: Apache) -> None:
    """Write PanDA's own configuration, as an operator does before the installation."""
    config = home.root / "etc/panda/panda_server.cfg"
    log_file, cache = home.root / "var/log/panda/server.log", home.root / "var/lib/panda/cache"
    place.write_config(config, log_file=log_file, cache=cache)
    config.chmod(0o640)
    for path in (config, place.root / "pki/ddm.pem"):
        give_to_server(path)


def _name_threads(home: Apache) -> None:
    entry = home.root / "usr/lib/panda/panda.wsgi"
    entry.write_text(_ENTRY.format(paths=_paths()) + entry.read_text())


def _add_plain_entrance(place: Site, home: Apache) -> None:
    library, people = home.root / "usr/lib/panda", home.root / "etc/panda/people.json"
    people.write_text(json.dumps(all_variables(place.root / "pki")))
    entry = library / "plain.wsgi"
    entry.write_text(_PLAIN_ENTRY.format(paths=_paths(), people=str(people)))
    text = _PLAIN_HOST.format(port=place.port, logs=home.root / "var/log/apache2", entry=entry, lib=library)
    (home.root / "etc/apache2/sites-enabled/plain.conf").write_text(text)


def _paths() -> list[str]:
    return [str(TOOLS), str(apache.ROOT)]
