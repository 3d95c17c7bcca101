"""`milanx env`: what a bug report needs."""

from __future__ import annotations

from milanx.cli import common as c


@c.explained
def env(as_json: c.Json = False, debug: c.Debug = False) -> None:
    """Print versions, device, optional parts and caches."""
    from milanx.environment import environment

    facts = environment()
    if as_json:
        c.print_json(facts)
        return
    for name, value in facts.items():
        c.say(f"{name:20} {value}")
