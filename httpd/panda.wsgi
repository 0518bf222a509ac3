"""The entry of the PanDA server for mod_wsgi, which passes no environment variables on."""

import os

os.environ["PANDA_CONFIG"] = "@{config_dir}/panda_server.cfg"

from pandaserver.wsgi import application as application  # noqa: E402 - reads the variable
