"""The entry of the PanDA monitor for mod_wsgi, which passes no environment variables on."""

import os

os.environ["PANDA_MONITOR_CONFIG"] = "@{config_dir}/monitor.cfg"

from pandamonitor.wsgi import application as application  # noqa: E402 - reads the variable
