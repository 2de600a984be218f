"""For all tests."""

from hypothesis import settings

# A machine that is busy with the live tests is slow now and then, which is no fault of what is tested.
settings.register_profile("verify-audit", deadline=None)
settings.load_profile("verify-audit")
