"""The outer app: what all routers share, and the pages that operators and their tools read."""

from cli.serving.app import Served, build
from cli.serving.tokens import bearer

__all__ = ["Served", "bearer", "build"]
