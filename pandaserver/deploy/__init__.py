"""Puts PanDA in place on a machine, behind Apache and under systemd, and says in words what is wrong there."""
