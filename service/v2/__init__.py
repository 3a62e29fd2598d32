"""The Open Inference Protocol (KServe V2) over HTTP, with Triton's extensions for binary data and classification."""
