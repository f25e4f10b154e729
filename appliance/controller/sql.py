"""The store on a database: implements store.Store by SQLAlchemy Core, on SQLite and PostgreSQL."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from appliance.controller.database import Database
from appliance.controller.sql_alerts import SqlAlerts
from appliance.controller.sql_deployments import SqlDeployments
from appliance.controller.sql_lists import SqlLists
from appliance.controller.sql_nodes import SqlNodes
from appliance.controller.sql_records import SqlRecords
from appliance.controller.sql_rollouts import SqlRollouts


class SqlStore:
    """Implements Store.

    Args:
        url: "sqlite:///PATH" or "postgresql://USER@HOST/NAME"; see Database.

    Raises:
        StoreError: it cannot be reached, or is of another schema.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self.nodes = SqlNodes(self._database)
        self.lists = SqlLists(self._database)
        self.deployments = SqlDeployments(self._database)
        self.alerts = SqlAlerts(self._database)
        self.records = SqlRecords(self._database)
        self.rollouts = SqlRollouts(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def revision(self) -> int:
        return self._database.revision()

    def close(self) -> None:
        """Close every connection."""
        self._database.close()
