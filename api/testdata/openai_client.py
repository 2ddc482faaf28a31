"""The unmodified openai client against a running server.

    python api/testdata/openai_client.py http://127.0.0.1:7878 MODEL [KEY]

Exits with status 0 when every expectation holds.
"""

import base64
import json
import math
import struct
import sys
import urllib.request

import openai


def near(a, b, tolerance=1e-6):
    return len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b))


def length(v):
    return math.sqrt(sum(x * x for x in v))


def single(v):
    """The numbers as 32-bit floats: JSON carries each in its shortest form."""
    return list(struct.unpack("<%df" % len(v), struct.pack("<%df" % len(v), *v)))


def raw(url, key, body):
    req = urllib.request.Request(
        url + "/v1/embeddings",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": "Bearer " + key},
    )
    with urllib.request.urlopen(req) as res:
        return json.load(res)


def main():
    url, model = sys.argv[1].rstrip("/"), sys.argv[2]
    key = sys.argv[3] if len(sys.argv) > 3 else "none"
    client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)

    names = [m.id for m in client.models.list()]
    assert model in names, names
    assert client.models.retrieve(model).id == model

    texts = ["good coffee", "bad coffee, never again", "北京欢迎你", "", "emoji 🎉"]

    # One text. The client asks for base64 by itself and decodes it.
    one = client.embeddings.create(model=model, input=texts[0])
    assert one.object == "list" and one.data[0].object == "embedding", one
    assert one.model == model, one.model
    dim = len(one.data[0].embedding)
    assert abs(length(one.data[0].embedding) - 1) < 1e-5
    assert one.usage.prompt_tokens == one.usage.total_tokens > 0, one.usage

    # A batch keeps its order, and a text's vector does not depend on its company.
    inputs = [t for t in texts if t]
    batch = client.embeddings.create(model=model, input=inputs)
    assert [d.index for d in batch.data] == list(range(len(inputs)))
    assert near(batch.data[0].embedding, one.data[0].embedding, 1e-5)
    assert batch.usage.prompt_tokens > one.usage.prompt_tokens

    # Floats, base64 and the default agree to the last bit.
    floats = client.embeddings.create(model=model, input=texts[0], encoding_format="float")
    assert single(floats.data[0].embedding) == single(one.data[0].embedding)
    packed = client.embeddings.create(model=model, input=texts[0], encoding_format="base64")
    body = packed.data[0].embedding
    assert isinstance(body, str), type(body)
    numbers = list(struct.unpack("<%df" % dim, base64.b64decode(body)))
    assert numbers == single(floats.data[0].embedding)
    plain = raw(url, key, {"model": model, "input": texts[0]})
    assert isinstance(plain["data"][0]["embedding"], list), "the default over the wire is floats"

    # Fewer dimensions: the beginning of the vector, at length one again.
    cut = client.embeddings.create(model=model, input=texts[0], dimensions=8).data[0].embedding
    head = numbers[:8]
    assert near(cut, [x / length(head) for x in head], 1e-5), cut

    # Token ids, where the server knows the model's tokens.
    try:
        ids = client.embeddings.create(model=model, input=[[101, 2204, 4157, 102], [101, 102]])
        assert len(ids.data) == 2 and ids.usage.prompt_tokens == 6, ids.usage
    except openai.BadRequestError as err:
        assert err.param == "input", err

    # Errors arrive as the client's own types, with their parts.
    def refused(kind, **call):
        try:
            client.embeddings.create(**call)
        except kind as err:
            assert err.body and err.body["message"] and err.body["type"], err.body
            return err
        raise AssertionError("not refused: %r" % call)

    err = refused(openai.NotFoundError, model="no-such-model", input="x")
    assert err.code == "model_not_found" and err.param == "model", err.body
    err = refused(openai.BadRequestError, model=model, input=[])
    assert err.param == "input", err.body
    refused(openai.BadRequestError, model=model, input="")
    err = refused(openai.BadRequestError, model=model, input="x", dimensions=dim + 1)
    assert err.param == "dimensions", err.body
    err = refused(openai.BadRequestError, model=model, input="x", encoding_format="hex")
    assert err.param == "encoding_format", err.body
    print("openai %s: single, batch, float, base64, dimensions, tokens, errors: good" % openai.__version__)


if __name__ == "__main__":
    main()
