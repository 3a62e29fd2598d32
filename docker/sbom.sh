#!/bin/sh
# sbom.sh OUT.json SITE...: a CycloneDX bill of the packages that are installed in these site-packages folders.
set -eu
out=$1
shift
folders=$(printf ':%s' "$@")

# The tool asks an interpreter for its path: one that sees these folders and not the tool's own.
bare=$(mktemp)
printf '#!/bin/sh\nPYTHONPATH=%s exec python3 -S "$@"\n' "${folders#:}" >"$bare"
chmod 755 "$bare"
cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
    --spec-version 1.6 --output-format JSON --output-file "$out" "$bare"
rm "$bare"
