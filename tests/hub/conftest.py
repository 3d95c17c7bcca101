"""A Hub on this machine."""

from tests.hub.fixtures import hub as hub
