import pytest
from faults.suite import MARK, FaultSuite
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's business, not the code's: no test fails because another load ran beside it.
settings.register_profile("mostool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mostool")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARK)
    config.pluginmanager.register(FaultSuite(alone=config.option.markexpr == "fault"), "faults")
