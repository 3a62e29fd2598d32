"""A service of several processes: HTTP processes in front of one engine process, or replicas."""
