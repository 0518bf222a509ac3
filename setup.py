"""Hands over to setup.cfg, for the tools that still ask for this file."""

from setuptools import setup

setup()
