#!/usr/bin/env bash
# Measures lookalike audiences against scikit-learn and LightGBM and writes
# bench/results/quality.json.
#
#   DATA=folder bench/quality/run.sh [tasks, comma-separated]
#
# DATA is the folder of the labelled data (default ../shared/data). PYTHON must have
# scikit-learn and lightgbm. The text tasks need the models of `make models`. Text
# vectors and rivals' figures are kept in bench/tmp/quality and used again while
# their inputs are the same.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
DATA=${DATA:-../shared/data}
METHODS=${METHODS:-auto,centroid,clusters,classifier}
TASKS=${1:-}
"$PYTHON" -c 'import sklearn, lightgbm' || { echo "run.sh: PYTHON=$PYTHON lacks scikit-learn or lightgbm: python3 -m venv V; V/bin/pip install scikit-learn lightgbm" >&2; exit 1; }
revision=$(git rev-parse --short=12 HEAD)
# Only what is measured counts: the result file itself may differ.
[ -z "$(git status --porcelain -- '*.go' '*.s' go.mod)" ] || revision="$revision with changes"
go run ./bench/quality -data "$DATA" -methods "$METHODS" -tasks "$TASKS" -revision "$revision"
"$PYTHON" bench/quality/rivals.py --tasks "$TASKS"
"$PYTHON" bench/quality/table.py
