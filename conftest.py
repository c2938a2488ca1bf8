import sys

import pytest

_started: list[str] = []


def pytest_addoption(pluginmanager):
    """Loads the plugin, unless `-p bench.plugin` has: a list `pytest_plugins` would do the same here, and is
    refused where another repository measures with this checkout installed."""
    pluginmanager.import_plugin("bench.plugin")


def pytest_collectreport(report):
    """Notes the first file whose import starts TensorFlow, which takes the devices as they are then."""
    context = sys.modules.get("tensorflow.python.eager.context")
    found = context and context.context_safe()  # no public way to ask
    if found is not None and found._initialized and not _started:
        _started.append(report.nodeid)


@pytest.fixture
def started_tensorflow():
    """The file that has started TensorFlow by being collected, in a list; empty where none has."""
    return list(_started)
