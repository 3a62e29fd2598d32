"""The commands of `patchserve` that classify, measure and look; `service.cli` registers them.

What a command needs is imported when it runs: `patchserve --help` waits for none of it.
"""
