"""Where the families of distributions keep what belongs to Apache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pandaserver.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """One family of distributions; paths are absolute, as on an installed system."""

    name: str
    marker: Path  # what is there on systems of this family alone
    sites: Path  # folder of Apache's configuration files
    enabled: Path | None  # folder of links to those that count, where there is one
    ports: tuple[Path, ...]  # files in which the distribution says where Apache listens
    modules: Path
    loaded: Path | None  # folder with a file for each module that is loaded, where there is one
    run_dir: Path
    apache_log_dir: Path
    apache_user: str
    apache_ctl: str
    apache_binary: str
    apache_log_group: str
    install_apache: str


DEBIAN = Layout(
    name="debian",
    marker=Path("/etc/debian_version"),
    sites=Path("/etc/apache2/sites-available"),
    enabled=Path("/etc/apache2/sites-enabled"),
    ports=(Path("/etc/apache2/ports.conf"),),
    modules=Path("/usr/lib/apache2/modules"),
    loaded=Path("/etc/apache2/mods-enabled"),
    run_dir=Path("/run/apache2"),
    apache_log_dir=Path("/var/log/apache2"),
    apache_user="www-data",
    apache_ctl="/usr/sbin/apachectl",
    apache_binary="/usr/sbin/apache2",
    apache_log_group="adm",
    install_apache="apt-get install apache2 libapache2-mod-wsgi-py3 gridsite",
)
RHEL = Layout(
    name="rhel",
    marker=Path("/etc/redhat-release"),
    sites=Path("/etc/httpd/conf.d"),
    enabled=None,
    ports=(Path("/etc/httpd/conf/httpd.conf"), Path("/etc/httpd/conf.d/ssl.conf")),
    modules=Path("/usr/lib64/httpd/modules"),
    loaded=None,
    run_dir=Path("/run/httpd"),
    apache_log_dir=Path("/var/log/httpd"),
    apache_user="apache",
    apache_ctl="/usr/sbin/apachectl",
    apache_binary="/usr/sbin/httpd",
    apache_log_group="root",
    install_apache="dnf install httpd mod_ssl gridsite python3.11-mod_wsgi",
)
LAYOUTS = {layout.name: layout for layout in (DEBIAN, RHEL)}


def detect(root: Path = Path("/")) -> Layout:
    """Tell the family of this machine.

    Raises:
        ConfigError: it is of none that is known here.
    """
    for layout in LAYOUTS.values():
        if (root / layout.marker.relative_to("/")).exists():
            return layout
    raise ConfigError(f"this system is not of a known family; say --layout {' or '.join(LAYOUTS)}", field="layout")
