#!/bin/sh
# trim.sh SITE: take out of a site-packages folder what serving never opens; docker/README.md says how that is shown.
set -eu
cd "$1"

# The packages' own tests (of NumPy alone 17 MB), and what only compilers and type checkers read.
find . -depth -type d -name tests -exec rm -r {} +
find . -type f \( -name '*.a' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.pyx' \) -delete

# ONNX Runtime: conversion, quantisation and sample data. NumPy: the Fortran wrapper.
rm -rf onnxruntime/backend onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers numpy/f2py

# Pillow: AVIF, which no setting allows, and text, which nobody draws. Without the modules Pillow does without them.
rm -f PIL/_avif.*.so PIL/_imagingft.*.so
rm -f pillow.libs/libavif-* pillow.libs/libfreetype-* pillow.libs/libharfbuzz-* pillow.libs/libbrotli*

# CUDA: second builds of its compiler, and libraries that nothing here is linked with or opens by name.
for folder in nvidia/*/lib; do
    [ -d "$folder" ] || continue
    rm -f "$folder"/*.alt.so* "$folder"/libnvblas.so* "$folder"/libcufftw.so*
done
