"""`application` for Apache/mod_wsgi: reads the file that PANDA_MONITOR_CONFIG names, or the usual one."""

from __future__ import annotations

import os
from pathlib import Path

from pandamonitor.app import create_app
from pandamonitor.settings import load
from pandaserver import log

DEFAULT_FILE = "/etc/panda/monitor.cfg"

_settings = load(Path(os.environ.get("PANDA_MONITOR_CONFIG") or DEFAULT_FILE), {})
log.set_up(_settings.log_level)
application = create_app(_settings)
