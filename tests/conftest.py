from hypothesis import settings

# Examples are judged by what they do, not by how long a busy machine takes for one.
settings.register_profile("patchserve", deadline=None)
settings.load_profile("patchserve")
