from hypothesis import HealthCheck, settings

# How long an example takes is the machine's business, not the code's: no test fails because another load ran beside it.
settings.register_profile("mostool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mostool")
