from __future__ import annotations

import pytest

from tests.e2e.server import BEHIND


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Behind a cluster's front, leave out what needs a server of its own kind."""
    if not BEHIND:
        return
    from tests.cluster.behind import why_left_out

    for item in items:
        test = item.name.partition("[")[0]
        if item.path.parent.name == "e2e" and (why := why_left_out(item.path.name, test)):
            item.add_marker(pytest.mark.skip(reason=f"behind a front: {why}"))
