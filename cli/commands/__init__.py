"""One file a command: parse, call a use case, print."""
