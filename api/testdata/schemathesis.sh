#!/usr/bin/env bash
# Property-based conformance of a running server with its own OpenAPI document.
#
#   api/testdata/schemathesis.sh http://127.0.0.1:7878
#
# VENV (default .venv) is the Python environment, made when absent; PYTHON makes
# it; KEY is an API key, if the server wants one; EXAMPLES bounds the requests
# per operation of the fuzzing phase. The run has a fixed seed, so that a failure
# can be repeated. Deletions run last: the rest finds the data that the
# document's examples name (conformance.sh stores them). schemathesis.toml says
# which checks are left out, and why.
set -euo pipefail
cd "$(dirname "$0")/../.."
url=${1:?usage: schemathesis.sh URL}
VENV=${VENV:-.venv}
if [ ! -x "$VENV/bin/schemathesis" ]; then
  "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/pip" install -q --disable-pip-version-check schemathesis==4.32.5
fi
args=(
  --phases examples,coverage,fuzzing
  --max-examples "${EXAMPLES:-20}" --seed 7 --workers 1
  --request-timeout 30
  --generation-database none --suppress-health-check all
  --continue-on-failure --no-color
)
[ -z "${KEY:-}" ] || args+=(-H "Authorization:Bearer $KEY")
st=("$VENV/bin/schemathesis" --config-file api/testdata/schemathesis.toml run "${args[@]}")
"${st[@]}" --exclude-method DELETE "$url/openapi.json"
"${st[@]}" --include-method DELETE "$url/openapi.json"
