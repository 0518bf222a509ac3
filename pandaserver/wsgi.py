"""`application` for Apache/mod_wsgi: reads PANDA_CONFIG or /etc/panda/panda_server.cfg."""

from __future__ import annotations

import sys

from pandaserver import config, log
from pandaserver.app import create_app, read_installation

_installation = read_installation(config.config_path(), strict=False)
log.set_up(_installation.config.server.log_level, _installation.config.server.log_file)
_server = create_app(_installation)
_server.start()
application = _server.application

# Inside Apache a stopped process lives some seconds longer: enough to answer pilots that wait and take no more work.
_front_end = sys.modules.get("mod_wsgi")
if _front_end is not None:
    _front_end.subscribe_shutdown(lambda *_event, **_told: _server.stop())
