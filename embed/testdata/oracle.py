"""Reference vectors for package embed, by PyTorch and ONNX Runtime.

    python -m venv venv && venv/bin/pip install "torch==2.2.2" "numpy<2" \
        "transformers<4.46" "sentence-transformers<3.4" onnx onnxruntime
    venv/bin/python oracle.py tiny                  # writes tiny/, tiny-onnx/ (random weights)
    venv/bin/python oracle.py golden                # writes golden-*.json.gz (real weights)
    venv/bin/python oracle.py compare --data DIR    # 1,000 real texts a model, prints min cosine

Run it in embed/testdata. The real models are taken from KINDRED_MODELS or
~/.cache/kindred/models, where `kindred models pull` puts them. all-MiniLM-L6-v2
is run by sentence-transformers on PyTorch in fp32; bge-small-zh-v1.5, whose
file is ONNX, by ONNX Runtime in fp32. `compare` calls the Go encoder through
`go run ../../bench/encoder`.
"""
import argparse, csv, gzip, io, json, os, pathlib, subprocess, sys, tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
MODELS = pathlib.Path(os.environ.get("KINDRED_MODELS", pathlib.Path.home() / ".cache/kindred/models"))

ENGLISH = [
    "", "a", "Where is my order?", "I want to cancel my subscription before the next payment.",
    "The blue jacket runs small; please send me a larger one.", "Delivery took nine days instead of two.",
    "great product, would buy again!!!", "Can I pay with two different cards?", "My card was charged twice on 3 March 2024.",
    "The app crashes whenever I open the settings page on my phone.", "Customer since 2011, buys coffee every second week.",
    "Prefers e-mail over phone calls.", "She returned three of her last five purchases.",
    "We are a small bakery and need a monthly invoice.", "How do I reset a forgotten password?",
    "The driver left the parcel in the rain.", "Not interested in offers about insurance.",
    "Looking for a gift for a ten-year-old who likes dinosaurs.", "naïve café résumé — accents & dashes…",
    "UPPER CASE COMPLAINT ABOUT A LATE TRAIN", "price: $1,299.00 (incl. 20% VAT), SKU #A-17/b",
    "emoji 😀👍🏽 in a review", "mixed 中文 and English in one line", "tabs\tand\nnew lines\r\nand   many spaces",
    "antidisestablishmentarianism", "xyzzyplughfrotz" * 8, "Two people, one account, three addresses.",
    "He books business class, always on Mondays, always to Frankfurt.", "Do you ship to Norway, and who pays the customs duty?",
    "Warranty claim: the left earphone stopped working after five weeks.", "Thanks, the problem is solved.",
    "I have waited for forty minutes on the phone and nobody answered.", "Vegetarian, two children, shops on weekends.",
    "The hotel room was clean but the air conditioning was very loud at night.", "Is there a student discount?",
    "Please delete all my personal data under the GDPR.", "new customer, first order above 200 euros",
    "The instructions are only in German and I cannot read them.", "long " * 300, "An order of forty office chairs for a new branch in Leeds. " * 12,
]
CHINESE = [
    "", "好", "我的订单到哪里了？", "我想在下次扣款之前取消会员。", "这件蓝色外套偏小，请给我换大一号。", "说好两天到，结果等了九天。",
    "东西很好，下次还会再买！！！", "可以用两张卡一起付款吗？", "2024年3月3日我的银行卡被扣了两次钱。", "每次打开设置页面，应用就闪退。",
    "老客户，每两周买一次咖啡豆。", "比起电话，更喜欢用邮件联系。", "最近五次购物退了三次货。", "我们是一家小面包店，需要每月开发票。",
    "忘记密码了怎么重置？", "快递员把包裹放在雨里了。", "对保险类的推销不感兴趣。", "想给十岁喜欢恐龙的孩子买礼物。", "繁體字的評論也應該可以處理。",
    "全角ＡＢＣ１２３，标点。", "价格：￥1,299.00（含税），货号 #A-17/b", "评论里有表情😀👍🏽", "中文和 English 混排 in one line", "制表符\t和\n换行   以及空格",
    "两个人，一个账号，三个地址。", "他每周一坐商务舱去上海，从不例外。", "发往新疆吗？运费谁出？", "保修申请：左边耳机用了五周就不响了。", "谢谢，问题解决了。",
    "电话等了四十分钟没人接。", "素食，两个孩子，周末购物。", "酒店房间干净，但空调晚上特别吵。", "有学生优惠吗？", "请按照个人信息保护法删除我的数据。",
    "新客户，首单超过两百元", "说明书只有德语，看不懂。", "生僻字：龘、靐、齉", "很" * 600, "为深圳新分公司订购四十把办公椅。" * 12, "𠮷野家的牛肉饭",
]


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def minilm(texts):
    from sentence_transformers import SentenceTransformer, models

    path = str(MODELS / "all-MiniLM-L6-v2")
    body = models.Transformer(path, max_seq_length=256)
    st = SentenceTransformer(modules=[body, models.Pooling(384, pooling_mode="mean"), models.Normalize()], device="cpu")
    return unit(st.encode(texts, batch_size=16, convert_to_numpy=True))


def bge(texts):
    import onnxruntime as ort
    from tokenizers import Tokenizer

    path = MODELS / "bge-small-zh-v1.5"
    tok = Tokenizer.from_file(str(path / "tokenizer.json"))
    tok.no_padding()
    tok.enable_truncation(512)
    session = ort.InferenceSession(str(path / "model.onnx"), providers=["CPUExecutionProvider"])
    out = []
    for text in texts:  # one by one: no padding, so no mask enters
        ids = np.array([tok.encode(text).ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        out.append(session.run(None, feed)[0][0, 0])
    return unit(out)


RUN = {"all-MiniLM-L6-v2": (minilm, ENGLISH), "bge-small-zh-v1.5": (bge, CHINESE)}


def write_gz(path, value):
    raw = json.dumps(value, ensure_ascii=False).encode()
    with open(path, "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as z:
        z.write(raw)


def golden(_):
    for name, (run, texts) in RUN.items():
        vectors = [[round(float(v), 7) for v in row] for row in run(texts)]
        write_gz(HERE / f"golden-{name}.json.gz", {"model": name, "texts": texts, "vectors": vectors})
        print(name, len(texts), "texts")


def rows(path, **kw):
    with gzip.open(path, "rt", encoding="utf-8", newline="") as f:
        yield from csv.reader(f, **kw)


def distinct(texts, n, max_chars=20000):
    return list(dict.fromkeys(t for t in texts if t.strip() and len(t) < max_chars))[:n]


def real_texts(data, n):
    data = pathlib.Path(data)
    reviews = [r[4] for r in rows(data / "womens_clothing/reviews.csv.gz")][1 : n + 200]
    bank = [r[0] for r in rows(data / "banking77/test.csv.gz")][1 : n + 1]
    shop = [r[2] for r in rows(data / "online_shopping_10_cats/online_shopping_10_cats.csv.gz")][1 :: 60]
    hotel = [r[1] for r in rows(data / "chnsenticorp_htl/ChnSentiCorp_htl_all.csv.gz")][1 :: 8]
    return {
        "all-MiniLM-L6-v2": distinct(reviews, n // 2) + distinct(bank, n - n // 2),
        "bge-small-zh-v1.5": distinct(shop, n // 2) + distinct(hotel, n - n // 2),
    }


def compare(args):
    worst = 1.0
    for name, texts in real_texts(args.data, args.n).items():
        pooling = {"all-MiniLM-L6-v2": "mean", "bge-small-zh-v1.5": "first"}[name]
        with tempfile.TemporaryDirectory() as tmp:
            src, dst = pathlib.Path(tmp, "texts.json"), pathlib.Path(tmp, "vectors.f32")
            src.write_text(json.dumps(texts), "utf-8")
            subprocess.run(["go", "run", "./bench/encoder", "-model", str(MODELS / name), "-pooling", pooling, "-precision", "fp32",
                            "-texts", str(src), "-out", str(dst)], cwd=HERE.parent.parent, check=True)
            got = np.fromfile(dst, "<f4").reshape(len(texts), -1)
        cos = (unit(got) * RUN[name][0](texts)).sum(1)
        i = int(cos.argmin())
        print(f"{name}: {len(texts)} texts, min cosine {cos[i]:.9f} (text {i}), mean {cos.mean():.9f}")
        worst = min(worst, cos[i])
    sys.exit(int(worst < 0.99999))


def tiny(_):
    """A random BERT of 2 layers x 24, 3 heads of 8; vectors by PyTorch in fp64."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    torch.manual_seed(7)
    words = "the a customer order late refund coffee shoes size please thank you want need never again new old first last".split()
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("abcdefghijklmnopqrstuvwxyz0123456789.,!?")
    vocab += ["##" + c for c in "abcdefghijklmnopqrstuvwxyz0123456789"] + words[0:1] + words[2:]
    vocab += list("我的订单很好退货")
    config = BertConfig(vocab_size=len(vocab), hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
                        max_position_embeddings=48, type_vocab_size=2, attn_implementation="eager")
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():  # far from the initial values, so that every part matters
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    ids = [[2, 3], [2, 60, 3], [2] + list(range(5, 51)) + [3], [2, 100, 101, 100, 45, 3], [2] + [99] * 20 + [3], [2, 90, 91, 92, 93, 94, 95, 96, 3]]
    ids += [[2] + torch.randint(0, len(vocab), (n,)).tolist() + [3] for n in range(1, 46, 3)]
    for folder in ("tiny", "tiny-onnx"):
        d = HERE / folder
        d.mkdir(exist_ok=True)
        (d / "vocab.txt").write_text("\n".join(vocab) + "\n", "utf-8")
        keep = {k: v for k, v in config.to_diff_dict().items() if k not in ("_attn_implementation_autoset",)}
        keep.update(hidden_act="gelu", position_embedding_type="absolute", num_attention_heads=3, num_hidden_layers=2, type_vocab_size=2)
        (d / "config.json").write_text(json.dumps(keep, indent=1, sort_keys=True) + "\n")
        (d / "tokenizer_config.json").write_text('{"do_lower_case": true}\n')
        (d / "kindred-model.json").write_text(json.dumps({"name": folder, "pooling": "mean", "max_tokens": 48, "normalize": True}) + "\n")
    state = {"bert." + k: v.contiguous() for k, v in model.state_dict().items() if v.is_floating_point()}
    save_file(state, HERE / "tiny/model.safetensors")
    example = torch.tensor([ids[2]])
    torch.onnx.export(model, (example, torch.ones_like(example), torch.zeros_like(example)), str(HERE / "tiny-onnx/model.onnx"),
                      input_names=["input_ids", "attention_mask", "token_type_ids"], output_names=["last_hidden_state"], opset_version=14)
    model = model.double()
    out = {"mean": [], "first": [], "last": [], "max": []}
    with torch.no_grad():
        for text in ids:
            h = model(torch.tensor([text])).last_hidden_state[0].numpy()
            for mode, v in (("mean", h.mean(0)), ("first", h[0]), ("last", h[-1]), ("max", h.max(0))):
                out[mode].append([round(float(x), 9) for x in v / np.linalg.norm(v)])
    write_gz(HERE / "golden-tiny.json.gz", {"ids": ids, "vectors": out})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tiny", "golden", "compare"])
    parser.add_argument("--data", help="folder of data sets, for compare")
    parser.add_argument("-n", type=int, default=1000)
    args = parser.parse_args()
    {"tiny": tiny, "golden": golden, "compare": compare}[args.what](args)
