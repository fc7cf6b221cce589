"""PostgreSQL and Valkey from wheels, started and stopped by ourselves.

    with Postgres(data_dir) as postgres, Valkey(data_dir) as valkey:
        use(postgres.url, valkey.url)

The wheels' own wrappers are not used: as root they open the mode of every parent folder, and
after a SIGKILL of the server they hand out its dead pid.
"""

from cli.embedded.postgres import Postgres
from cli.embedded.sockets import Addresses, addresses
from cli.embedded.valkey import Valkey

__all__ = ["Addresses", "Postgres", "Valkey", "addresses"]
