"""The image-classification service: FastAPI, a patch scheduler and ONNX Runtime."""
