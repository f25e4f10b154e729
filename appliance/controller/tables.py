"""The tables behind sql.py, alike on SQLite and PostgreSQL.

Names of nodes, lists and subjects are wire.Name. Messages that are kept whole (an alert, a health
message) are kept as the MessagePack that wire.py reads, so that a new field there needs no new
column here. `records` can be added to only: the database itself refuses the rest.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
)

from appliance.wire import NAME_MAX_CHARS

SCHEMA_VERSION = 1

metadata = MetaData()

_Name = String(NAME_MAX_CHARS)
_Number = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts a primary key up by itself only if its type is exactly INTEGER (64 bits there)."""

meta = Table(
    "meta",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("node", _Name, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("token_hash", LargeBinary),
    Column("token_expires_ms", BigInteger, nullable=False, default=0),
    Column("join_digest", LargeBinary),
    Column("watch_key", LargeBinary),
)

seen = Table(
    "seen",
    metadata,
    Column("node", _Name, primary_key=True),
    Column("boot", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("health", LargeBinary),
    Column("list_id", _Name, nullable=False),
    Column("list_version", BigInteger, nullable=False),
    Column("lease_left_s", BigInteger, nullable=False),
    Column("refused", Text, nullable=False),
    Column("offered_id", _Name, nullable=False),
    Column("offered_version", BigInteger, nullable=False),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # hexadecimal: a serial has up to 160 bits
    Column("node", _Name, nullable=False, index=True),
    Column("issued_ms", BigInteger, nullable=False),
)

lists = Table(
    "lists",
    metadata,
    Column("list_id", _Name, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("deployment", _Name, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("digests", LargeBinary, nullable=False),
    Column("content_key", LargeBinary),
    Column("counts", Text, nullable=False),
    Column("added_ms", BigInteger, nullable=False),
)

pieces = Table(
    "pieces",
    metadata,
    Column("list_id", _Name, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
)

deployments = Table(
    "deployments",
    metadata,
    Column("deployment", _Name, primary_key=True),
    Column("list_id", _Name, nullable=False),
    Column("list_version", BigInteger, nullable=False),
    Column("nodes", Text, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("authority", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("lease_s", Integer, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("stopped_ms", BigInteger),
    Column("ended_by", String(16), nullable=False),
)

wipes = Table(
    "wipes",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("node", _Name, nullable=False),
    Column("ordered_ms", BigInteger, nullable=False),
    Column("done_ms", BigInteger),
)

alerts = Table(
    "alerts",
    metadata,
    Column("node", _Name, primary_key=True),
    Column("boot", LargeBinary, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("alert", LargeBinary),  # NULL: it could not be opened
    Column("fault", Text, nullable=False),
    Index("alerts_by_time", "received_ms"),
)

conflicts = Table(
    "conflicts",
    metadata,
    Column("node", _Name, primary_key=True),
    Column("boot", LargeBinary, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, primary_key=True),
    Column("received_ms", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout", _Name, primary_key=True),
    Column("version", String(40), nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("stages", Text, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stop_after", Integer, nullable=False),
    Column("tolerated", Integer, nullable=False),
    Column("while_watching", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("why", Text, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
)

upgrades = Table(
    "upgrades",
    metadata,
    Column("rollout", _Name, primary_key=True),
    Column("node", _Name, primary_key=True),
    Column("step", String(16), nullable=False),
    Column("fetched", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("why", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

running = Table(
    "running",
    metadata,
    Column("node", _Name, primary_key=True),
    Column("version", String(40), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

records = Table(
    "records",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("about", Text, nullable=False),
    sqlite_autoincrement=True,  # a number is never given twice
)

_REFUSAL = "the record can be added to, not changed"
_SQLITE_GUARD = (
    "CREATE TRIGGER records_no_{0} BEFORE {0} ON records"
    f" BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
)
_POSTGRESQL_GUARD_FUNCTION = (
    "CREATE FUNCTION records_refuse() RETURNS trigger LANGUAGE plpgsql AS"
    f" $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
)
_POSTGRESQL_GUARD = (
    "CREATE TRIGGER records_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON records"
    " FOR EACH STATEMENT EXECUTE FUNCTION records_refuse()"
)
_GUARDS = {
    "sqlite": (_SQLITE_GUARD.format("UPDATE"), _SQLITE_GUARD.format("DELETE")),
    "postgresql": (_POSTGRESQL_GUARD_FUNCTION, _POSTGRESQL_GUARD),
}


@event.listens_for(records, "after_create")
def _guard_records(_table: Table, connection: Connection, **_: object) -> None:
    """Let the database refuse to change the record."""
    for statement in _GUARDS[connection.dialect.name]:
        connection.exec_driver_sql(statement)
