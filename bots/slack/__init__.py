"""Slack, by the Events API or Socket Mode.

settings.py names what it takes, signing.py checks who calls, parsing.py is pure, sending.py lays
out what is sent, wire.py holds the client and its errors, routes.py and socket_mode.py bring events
in, channel.py joins them.
"""

from bots.slack.channel import Slack
from bots.slack.routes import slack_routes
from bots.slack.settings import SlackSettings

__all__ = ["Slack", "SlackSettings", "slack_routes"]
