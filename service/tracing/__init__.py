"""OpenTelemetry traces. Only `spans` and `export` import its SDK, and they are imported only if it is asked for."""
