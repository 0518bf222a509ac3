"""The parts of `tools/rehearse`, which does on a fresh Debian what the page for operators says."""
