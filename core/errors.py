"""What can go wrong, branched by what the caller must do.

DeskhandError
├── InvalidInput            tell the person who sent it; nothing was stored
│   ├── NotFound              it names nothing that exists
│   └── Conflict              somebody else was first (another agent, a newer version)
├── ConfigurationError      stop at start, with one clear line
├── TransientError          surely not done: try again, after `retry_after` seconds if given
│   └── Unavailable           a part of the system is away; the caller may come back
├── UncertainError          perhaps done: look it up, else leave it to staff
├── PermanentError          will never succeed: dead-letter
└── LostClaim               the work is somebody else's now, or no longer wanted: drop the result
"""


class DeskhandError(Exception):
    """Base of all errors that Deskhand raises on purpose; its text is fit for a person."""


class InvalidInput(DeskhandError):
    """What was sent is wrong; nothing was stored.

    Args:
        message: What is wrong, where, and what to do.
        field: The name of the field, column or variable at fault.
        code: A stable word for programs.
    """

    def __init__(self, message: str, *, field: str | None = None, code: str = "invalid") -> None:
        super().__init__(message)
        self.field = field
        self.code = code


class NotFound(InvalidInput):
    """What was named does not exist."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message, field=field, code="not_found")


class Conflict(InvalidInput):
    """Somebody else was first."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message, field=field, code="conflict")


class ConfigurationError(DeskhandError):
    """A setting is missing or wrong; the process must not start."""


class TransientError(DeskhandError):
    """Surely not done, may succeed later.

    Args:
        message: What happened.
        retry_after: Seconds that the other side asked us to wait, if it did.
        whole_inbox: The wait holds for the whole inbox, not for this chat alone.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, whole_inbox: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.whole_inbox = whole_inbox


class Unavailable(TransientError):
    """A part of the system is away: the database, the workers, a model."""


class UncertainError(DeskhandError):
    """Perhaps done, perhaps not: never repeat it blindly."""


class PermanentError(DeskhandError):
    """Will never succeed.

    Args:
        message: What happened.
        moved_to: The chat's new id, where the platform named one.
        contact_gone: The customer blocked us or is gone; nothing more can be sent to them.
        inbox_gone: Our own account or token is gone; the inbox is off until staff act.
    """

    def __init__(
        self,
        message: str,
        *,
        moved_to: str | None = None,
        contact_gone: bool = False,
        inbox_gone: bool = False,
    ) -> None:
        super().__init__(message)
        self.moved_to = moved_to
        self.contact_gone = contact_gone
        self.inbox_gone = inbox_gone


class LostClaim(DeskhandError):
    """The fence or the epoch changed: the result must be thrown away."""
