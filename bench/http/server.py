"""The rival of run.py: the embedding service that one writes in Python around ONNX
Runtime. POST /v1/embeddings takes {"input": [...], "encoding_format"} and answers as
OpenAI's does, POST /embed as text-embeddings-inference does. Texts of a request are
sorted by length and padded in batches; orjson reads and writes the bodies.

    python server.py ONNX TOKENIZER.json PORT WORKERS THREADS BATCH

WORKERS requests run at a time, each on THREADS threads of ONNX Runtime.
"""
import asyncio, base64, contextlib, sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from tokenizers import Tokenizer

onnx, vocabulary, port, workers, threads, batch = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
tokenizer = Tokenizer.from_file(vocabulary)
tokenizer.no_padding()
tokenizer.enable_truncation(256)
so = ort.SessionOptions()
so.intra_op_num_threads, so.inter_op_num_threads = threads, 1
so.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
session = ort.InferenceSession(onnx, so, providers=["CPUExecutionProvider"])
names = [i.name for i in session.get_inputs()]
pool = ThreadPoolExecutor(workers)
app = FastAPI()


def encode(texts):
    found = [e.ids for e in tokenizer.encode_batch_fast(texts)]
    order = sorted(range(len(texts)), key=lambda i: len(found[i]))
    out = np.empty((len(texts), 384), "<f4")
    for at in range(0, len(order), batch):
        part = order[at : at + batch]
        longest = max(len(found[i]) for i in part)
        ids, mask = np.zeros((len(part), longest), np.int64), np.zeros((len(part), longest), np.int64)
        for row, i in enumerate(part):
            ids[row, : len(found[i])], mask[row, : len(found[i])] = found[i], 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        v = (session.run(None, {n: feed[n] for n in names})[0] * mask[:, :, None]).sum(1)
        out[part] = v / np.linalg.norm(v, axis=1, keepdims=True)
    return out


def answer(v):
    return Response(orjson.dumps(v, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


async def vectors_of(texts):
    return await asyncio.get_running_loop().run_in_executor(pool, encode, texts)


@app.post("/v1/embeddings")
async def embeddings(request: Request):
    body = orjson.loads(await request.body())
    vectors = await vectors_of(body["input"])
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(v.tobytes()).decode() for v in vectors]
    return answer({"object": "list", "data": [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]})


@app.post("/embed")
async def embed(request: Request):
    return answer(await vectors_of(orjson.loads(await request.body())["inputs"]))


@app.get("/healthz")
async def health():
    return {}


with contextlib.suppress(KeyboardInterrupt):
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, timeout_keep_alive=600)
