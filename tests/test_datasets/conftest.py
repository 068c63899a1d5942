# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def log(caplog):
    """What goes to mmengine's current logger, which does not propagate."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
