from hypothesis import settings

pytest_plugins = ["fault_costs"]

# Examples are judged by what they do, not by how long a busy machine takes for one.
settings.register_profile("patchserve", deadline=None)
# By command, for the tests that say so: pytest ... --hypothesis-profile=thorough
settings.register_profile("thorough", deadline=None, max_examples=10_000)
settings.load_profile("patchserve")
