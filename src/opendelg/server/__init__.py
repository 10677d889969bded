"""The service: search by photo over HTTP, and the page for browsers."""

from opendelg.server.app import create_app
from opendelg.server.running import make_server
from opendelg.server.settings import ServerSettings, read_token

__all__ = ["ServerSettings", "create_app", "make_server", "read_token"]
