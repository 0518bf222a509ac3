"""What `panda-server install` puts in place: paths, values in templates, and what is the operator's kept."""

from __future__ import annotations

import configparser
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pandaserver.config import load
from pandaserver.deploy.layout import DEBIAN, LAYOUTS, RHEL, Layout, detect
from pandaserver.deploy.place import place
from pandaserver.deploy.plan import FRONT_ERRORS, Choices, File, fill, make_plan, sources, with_values
from pandaserver.errors import ConfigError

ME = Path.home().owner() if os.geteuid() else "root"
CHOICES = Choices(layout=DEBIAN, server_name="panda.example.org", user=ME, group=ME, apache_user=ME)
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)


def private(tmp_path: Path, **more: object) -> Choices:
    layout = replace(DEBIAN, apache_log_group=ME)
    return replace(CHOICES, layout=layout, prefix=tmp_path / "there", **more)  # type: ignore[arg-type]


def texts(choices: Choices) -> dict[str, str]:
    return {str(file.path): file.text for file in make_plan(choices, None).files}


# ---- paths


def test_debian() -> None:
    plan = make_plan(CHOICES, None)
    paths = {str(file.path) for file in plan.files}
    assert {"/etc/apache2/sites-available/panda.conf", "/etc/panda/panda_server.cfg"} <= paths
    assert {"/etc/systemd/system/panda-worker.service", "/etc/logrotate.d/panda", "/usr/lib/panda/panda.wsgi"} <= paths
    (link,) = plan.links
    assert (str(link.path), str(link.target)) == (
        "/etc/apache2/sites-enabled/panda.conf",
        "/etc/apache2/sites-available/panda.conf",
    )


def test_rhel() -> None:
    plan = make_plan(replace(CHOICES, layout=RHEL), None)
    text = {str(file.path): file.text for file in plan.files}["/etc/httpd/conf.d/panda.conf"]
    assert "/usr/lib64/httpd/modules/mod_ssl.so" in text and 'WSGISocketPrefix "/run/httpd/wsgi"' in text
    assert "/var/log/httpd/panda-error.log" in text and "apache2" not in text
    assert plan.links == ()


@each_layout
def test_everything_is_below_the_prefix(layout: Layout, tmp_path: Path) -> None:
    plan = make_plan(replace(CHOICES, layout=layout, prefix=tmp_path), None)
    for path in (*(f.path for f in plan.files), *(f.path for f in plan.folders), *(x.path for x in plan.links)):
        assert path.is_relative_to(tmp_path)


@each_layout
@pytest.mark.parametrize("prefix", ["/", "/opt/panda"])
def test_no_place_is_left_unfilled(layout: Layout, prefix: str) -> None:
    for path, text in texts(replace(CHOICES, layout=layout, prefix=Path(prefix), monitor_port=443)).items():
        assert "@{" not in text, path


def test_every_template_is_used() -> None:
    used = {Path(path).name for path in texts(replace(CHOICES, prefix=Path("/opt/panda"), monitor_port=443))}
    templates = {path.name for path in (sources() / "httpd").rglob("*") if path.is_file()}
    renamed = {"private.conf": "httpd.conf", "logrotate.conf": "panda", "errors.json": "500.json"}
    assert {renamed.get(name, name) for name in templates} <= used


def test_every_template_is_in_an_installed_package() -> None:
    parser = configparser.ConfigParser()
    parser.read(sources() / "setup.cfg")
    patterns = [line for text in parser["options.data_files"].values() for line in text.split()]
    packed = {path for pattern in patterns for path in sources().glob(pattern) if path.is_file()}
    assert {path for path in (sources() / "httpd").rglob("*") if path.is_file()} <= packed


def test_the_monitor_is_there_when_it_has_a_port() -> None:
    assert not [path for path in texts(CHOICES) if "panda-monitor.conf" in path]
    with_monitor = replace(CHOICES, monitor_port=8443)
    assert "Listen 8443\n" in texts(with_monitor)["/etc/apache2/sites-available/panda-monitor.conf"]
    assert len(make_plan(with_monitor, None).links) == 2


@pytest.mark.parametrize(("marker", "layout"), [("debian_version", DEBIAN), ("redhat-release", RHEL)])
def test_the_family_is_found_out(tmp_path: Path, marker: str, layout: Layout) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / marker).touch()
    assert detect(tmp_path) == layout


def test_an_unknown_family_has_to_be_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--layout debian or rhel"):
        detect(tmp_path)


# ---- what the files say


def test_the_front_end_is_as_strict_as_it_must_be() -> None:
    said = texts(CHOICES)
    conf, common = said["/etc/apache2/sites-available/panda.conf"], said["/usr/lib/panda/panda-common.conf"]
    for line in (
        "SSLVerifyClient optional", "SSLCARevocationCheck chain", "SSLSessionCache none", "SSLSessionTickets off",
        "SSLOptions +StdEnvVars +ExportCertData", "WSGIRestrictEmbedded On", "Listen 25443", "Listen 25080",
        'home="/var/lib/panda"',
    ):  # fmt: skip
        assert line in conf, line
    for line in ("GridSiteAuth off", "GridSiteEnvs off", "TraceEnable off", "AllowEncodedSlashes Off"):
        assert line in common, line
    assert "DeflateInflateLimitRequestBody 209715200" in common
    assert "maximum-requests" not in conf


def test_no_log_holds_a_query_or_a_header_with_a_secret() -> None:
    for path, text in texts(replace(CHOICES, monitor_port=443)).items():
        for line in re.findall(r"LogFormat .*", text):
            assert not re.search(r"%[<>]?r|%[<>]?q|Referer|Authorization|Cookie", line), (path, line)


def test_every_error_of_the_front_end_is_json() -> None:
    said = texts(CHOICES)
    for code, words in FRONT_ERRORS.items():
        text = said[f"/usr/lib/panda/errors/{code}.json"]
        assert f'"status": {code},' in text and words in text
        assert f"ErrorDocument {code} /panda-errors/{code}.json" in said["/usr/lib/panda/panda-common.conf"]


def test_threads_and_limits_follow_the_configuration(tmp_path: Path) -> None:
    own = (sources() / "conf" / "panda_server.cfg").read_text()
    changed = {("server", "threads"): 48, ("server", "max_body_mb"): 5, ("dispatch", "wait_max_s"): 200}
    (tmp_path / "panda_server.cfg").write_text(with_values(own, changed))
    plan = make_plan(CHOICES, load(tmp_path / "panda_server.cfg"))
    said = {file.path.name: file.text for file in plan.files}
    assert "threads=48" in said["panda.conf"] and "Timeout 260" in said["panda.conf"]
    assert f"LimitRequestBody {6 * 1024 * 1024}" in said["panda-common.conf"]


def test_an_address_of_its_own() -> None:
    for address, line in (("10.0.0.1", "Listen 10.0.0.1:25443"), ("::1", "Listen [::1]:25443")):
        said = texts(replace(CHOICES, address=address))
        assert line in said["/etc/apache2/sites-available/panda.conf"]


@pytest.mark.parametrize("name", ['x"\nInclude /etc/shadow', "x\ny", "x'y", "$(id)", "x;y", "x>y"])
def test_no_value_gets_out_of_its_place(name: str) -> None:
    with pytest.raises(ConfigError, match="characters"):
        make_plan(replace(CHOICES, server_name=name), None)


def test_a_place_without_value_is_a_fault() -> None:
    with pytest.raises(KeyError):
        fill("@{unknown}", {})


def test_the_own_configuration_can_be_read(tmp_path: Path) -> None:
    choices = private(tmp_path)
    place(make_plan(choices, None), group=ME)
    config = load(choices.config_file)
    assert config.server.public_url == "https://panda.example.org:25443"
    assert config.cache.directory == choices.state_dir / "cache"
    assert config.identity.pilots == config.identity.operators == ()
    for name in ("monitor.cfg", "scheduler.cfg", "sites.cfg", "retry.cfg"):
        assert (choices.config_dir / name).exists()


def test_samples_keep_their_comments() -> None:
    sample = "[a]\n# one\nx = 1\n# list\ny =\n    first\n    second\n[b]\nx = 2\n"
    changed = with_values(sample, {("a", "x"): 5, ("a", "y"): ""})
    assert changed == "[a]\n# one\nx = 5\n# list\ny =\n[b]\nx = 2\n"
    with pytest.raises(ConfigError, match="no "):
        with_values(sample, {("b", "y"): 1})


@pytest.mark.parametrize("name", ["panda-worker", "panda-monitor@", "panda-scheduler@", "panda-reload"])
def test_units_are_ini_files_and_say_what_runs(name: str) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(texts(CHOICES)[f"/etc/systemd/system/{name}.service"])
    assert parser["Unit"]["Description"].startswith(("PanDA", "Let Apache"))
    assert parser["Service"]["ExecStart"].strip('"').startswith("/")


# ---- putting it there


def test_twice_changes_nothing(tmp_path: Path) -> None:
    plan = make_plan(private(tmp_path), None)
    assert {step.act for step in place(plan, group=ME)} <= {"made", "written", "linked", "unchanged"}
    again = place(plan, group=ME)
    assert {step.act for step in again} == {"unchanged", "kept"}
    assert not list((tmp_path / "there").rglob(".*"))


def test_what_is_the_operators_stays_and_what_is_ours_is_renewed(tmp_path: Path) -> None:
    choices = private(tmp_path)
    place(make_plan(choices, None), group=ME)
    conf = choices.below("/etc/apache2/sites-available/panda.conf")
    choices.config_file.write_text("mine")
    conf.write_text("old")
    acts = {step.path: step.act for step in place(make_plan(choices, None), group=ME)}
    assert (acts[choices.config_file], choices.config_file.read_text()) == ("kept", "mine")
    assert acts[conf] == "changed" and "VirtualHost" in conf.read_text()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    steps = place(make_plan(private(tmp_path), None), group=ME, dry_run=True)
    assert {"made", "written", "linked"} == {step.act for step in steps}
    assert list(tmp_path.iterdir()) == []


def test_passwords_are_not_for_everybody(tmp_path: Path) -> None:
    choices = private(tmp_path)
    place(make_plan(choices, None), group=ME)
    assert choices.config_file.stat().st_mode & 0o777 == 0o640
    assert choices.below("/usr/lib/panda/panda.wsgi").stat().st_mode & 0o777 == 0o644
    assert (choices.state_dir / "gridsite").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("a file")
    with pytest.raises(ConfigError, match="--prefix"):
        place(make_plan(private(tmp_path), None), group=ME)


def test_a_link_that_points_elsewhere_is_the_operators(tmp_path: Path) -> None:
    choices = private(tmp_path)
    link = choices.below("/etc/apache2/sites-enabled/panda.conf")
    link.parent.mkdir(parents=True)
    link.symlink_to("/nowhere")
    place(make_plan(choices, None), group=ME)
    assert str(link.readlink()) == "/nowhere"


def test_the_operators_are_files_of_the_plan() -> None:
    kept = {file.path.name for file in make_plan(CHOICES, None).files if file.kept}
    assert kept == {path.name for path in (sources() / "conf").glob("*.cfg")}
    assert File(Path("/x"), "").kept is False


# ---- who sends pilots


def test_the_scheduler_is_not_the_server() -> None:
    unit = texts(replace(CHOICES, user="panda"))["/etc/systemd/system/panda-scheduler@.service"]
    assert "User=panda-pilot\n" in unit and "Group=" not in unit and "User=panda\n" not in unit
    other = texts(replace(CHOICES, scheduler_user="factory"))["/etc/systemd/system/panda-scheduler@.service"]
    assert "User=factory\n" in other


def test_the_scheduler_knows_its_server_and_can_read_its_configuration(tmp_path: Path) -> None:
    choices = private(tmp_path)
    place(make_plan(choices, None), group=ME)
    file = choices.config_dir / "scheduler.cfg"
    assert "server = https://panda.example.org:25443\n" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    for name in ("panda_server.cfg", "monitor.cfg"):  # they hold passwords
        assert (choices.config_dir / name).stat().st_mode & 0o777 == 0o640
