"""A Hub on this machine, a tiny describer and a tiny run."""

from tests.files.test_damage import little as little
from tests.files.test_damage import made as made
from tests.hub.fixtures import hub as hub
