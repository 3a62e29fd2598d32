"""From a file to patches: in threads of this process, or in processes that can be killed."""
