"""`application` for Apache/mod_wsgi: reads PANDA_CONFIG or /etc/panda/panda_server.cfg."""

from __future__ import annotations

from pandaserver import config, log
from pandaserver.app import create_app, read_installation

_installation = read_installation(config.config_path())
log.set_up(_installation.config.server.log_level, _installation.config.server.log_file)
_server = create_app(_installation)
_server.start()
application = _server.application
