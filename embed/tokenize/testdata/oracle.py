"""Golden token ids from the reference implementation (PyPI `tokenizers`).

    python oracle.py TOKENIZERS_DIR              writes the goldens beside this file
    python oracle.py TOKENIZERS_DIR compare DATA OUT
                                                 writes OUT/{texts,ids}: every line of every file of DATA

TOKENIZERS_DIR holds bert-base-uncased, bert-base-chinese and bge-large-zh-v1.5. mini-vocab.txt is made here
from this corpus, so that the tests have something to check where the others are absent.
"""
import array
import glob
import gzip
import json
import os
import random
import sys

from tokenizers import AddedToken, BertWordPieceTokenizer, Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SEEDS = [
    "The quick brown fox jumps over the lazy dog. It's 3:45 p.m.; isn't it?",
    "Unbelievable internationalisation of electroencephalographically tokenised words",
    "Crème brûlée, naïve façade, Ærøskøbing, Straße, ſpecial, ﬁne, Ǆ ǅ ǆ, Å Å Å",
    "客户张三在2024年3月购买了iPhone 15 Pro，非常满意！退货率＜5％。", "為這個句子生成表示以用於檢索相關文章：", "㐀㐁𠀀𠀁𪜀𫝀𫠠𬺰豈更車",
    "東京都の天気は晴れです。カタカナ ﾊﾝｶｸ がぎぐげご ぱぴ", "안녕하세요 고객님, 서울의 날씨는 맑습니다. 힣가각", "مرحبا بالعالم، كَيْفَ حَالُكَ؟ ١٢٣", "สวัสดีครับ ลูกค้า ไม่พอใจ ๑๒๓",
    "Привет, мир! Ёлка и йод. ЩЪЫЬЭЮЯ", "Ελληνικά ΟΔΥΣΣΕΥΣ ς Σ ά έ ή", "हिन्दी में ग्राहक क्षेत्र ज़", "İstanbul ISPARTA ıI DİYARBAKIR", "שלום עולם נִקּוּד", "Tiếng Việt: khách hàng rất hài lòng về dịch vụ",
    "😀😂👍🏽🔥😎 👨‍👩‍👧‍👦 🇨🇳🇩🇪 ❤️ ☎︎ 1️⃣", "a\u0301\u0327\u0328 e\u0327\u0301 \u1e69 s\u0323\u0307 s\u0307\u0323 q\u0301\u0301\u0301", "\u302e\u302f a\u302f\u0345\u0301\u302e x\u1D165\u0344", "\U0001D15F\U0001D16E\U0001D165 \u08d4\u0345\u1dfb",
    "tab\tnew\nline\r\nnbsp\u00a0ideographic\u3000zero\u200bwidth\u2028sep\u2029nel\u0085vt\x0bff\x0c", "nul\x00in\x01side\x7f\x9f \ufffd\ufeffbom \xad soft\xadhyphen", "\u2060\u2061 \ue000\uf8ff \U000f0000 \U0010fffd \ufffe\uffff",
    "[CLS] literal [SEP] [MASK][MASK] [mask] [PAD]x y[UNK]z [CLS [ SEP] [[MASK]] [MAS\u200bK]", "##ing ##a ## # hello##world", "a" * 100, "a" * 101, "b" * 10000, "电" * 300, "ab\u0301" * 60, "!" * 120, "x" * 99 + "\u00e9" * 2, "가" * 34,
    "http://example.com/a?b=c&d=e_f#g user@mail.com +86-138-0013-8000 $1,299.99 50% C++ C# .NET", "ＦＵＬＬＷＩＤＴＨ ｆｕｌｌ １２３ ～！＠", "½ ² ³ ① Ⅳ ㎏ ™ © § ¶ † ‡ • … ‰ ′ ″ ‹ › « » ¿ ¡ ‚ „ “ ” ‘ ’ – —", "", " ", "\n\t ", "a", "。", "\u0301", "\u200d", "[MASK]", " [MASK] ",
]
BLOCKS = [(0, 0x7F), (0x80, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x8A0, 0x97F), (0xE00, 0xEFF), (0xF00, 0xFFF), (0x1100, 0x11FF), (0x1B00, 0x1BFF), (0x1DC0, 0x1FFF),
          (0x2000, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA640, 0xABFF), (0xAC00, 0xD7A3), (0xE000, 0xFAFF), (0xFB00, 0xFFFF), (0x10000, 0x10FFF), (0x11000, 0x11FFF),
          (0x1D100, 0x1D24F), (0x1E000, 0x1E95F), (0x1F000, 0x1FAFF), (0x20000, 0x2FA1F), (0x30000, 0x3FFFF), (0xE0000, 0xE01EF), (0, 0x10FFFF)]


def char(rng):
    while True:
        c = rng.randint(*rng.choice(BLOCKS))
        if not 0xD800 <= c <= 0xDFFF:
            return chr(c)


def corpus(words, n):
    rng = random.Random(20240131)
    out = [s.encode() for s in SEEDS]
    for _ in range(n):
        kind = rng.randrange(6)
        if kind == 0:
            s = "".join(char(rng) for _ in range(rng.randint(1, 40))).encode()
        elif kind == 1:
            a, b = rng.choice(SEEDS)[:200], rng.choice(SEEDS)[:200]
            s = (a[rng.randrange(len(a) + 1):] + char(rng) + b[:rng.randrange(len(b) + 1)]).encode()
        elif kind == 2:
            s = " ".join(rng.choice(words) for _ in range(rng.randint(1, 12))).encode()
        elif kind == 3:
            s = "".join(rng.choice(words).removeprefix("##") + rng.choice(["", "", " ", "\u0301", "\u200b", "-", "[SEP]", char(rng)]) for _ in range(rng.randint(1, 10))).encode()
        elif kind == 4:
            s = bytearray(rng.choice(SEEDS)[:300].encode())
            for _ in range(rng.randint(1, 4)):
                if s:
                    s[rng.randrange(len(s))] = rng.randrange(256)
            s = bytes(s)
        else:
            marks = "\u0301\u0327\u0323\u0345\u302e\u302f\u1B44\u08d4\U0001D165\U0001D16D\u0334\u05b0\u3099\u0f71\u0f72\u0903\u0900\u1dfb\u034f\u200d"
            s = "".join(rng.choice("aeocAZö가か" + marks * 2) for _ in range(rng.randint(1, 45))).encode()
        out.append(s)
    return out


def with_vocab(path, lower):
    t = BertWordPieceTokenizer(path, lowercase=lower)
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return t


def from_json(path):
    t = Tokenizer.from_file(path)
    t.no_truncation()
    t.no_padding()
    return t


def configs(base):
    return [("uncased-json", from_json(f"{base}/bert-base-uncased/tokenizer.json")), ("uncased-vocab", with_vocab(f"{base}/bert-base-uncased/vocab.txt", True)),
            ("chinese-vocab", with_vocab(f"{base}/bert-base-chinese/vocab.txt", True)), ("chinese-cased", with_vocab(f"{base}/bert-base-chinese/vocab.txt", False)),
            ("bge-json", from_json(f"{base}/bge-large-zh-v1.5/tokenizer.json")),
            ("mini-vocab", with_vocab(f"{HERE}/mini-vocab.txt", True)), ("mini-cased", with_vocab(f"{HERE}/mini-vocab.txt", False))]


def spans(text, enc):
    """Byte offsets of each id."""
    at = [0]
    for ch in text:
        at.append(at[-1] + len(ch.encode()))
    return [[at[a], at[b]] for a, b in enc.offsets]


def mini(words):
    rng = random.Random(7)
    pieces = SPECIAL + sorted(set("".join(SEEDS)) - {" ", "\n", "\t", "\r", "\x00", "\u3000", "\u00a0", "\u2028", "\u2029", "\x85", "\x0b", "\x0c"})
    pieces += ["##" + ch for ch in "abcdefghijklmnopqrstuvwxyz0123456789\u1100\u1161\u11a8\u302e\u302f\u1b44\u08d4éÉ"] + rng.sample(words, 800)
    with open(f"{HERE}/mini-vocab.txt", "w", newline="\n") as f:
        f.write("\n".join(dict.fromkeys(p for p in pieces if p.strip() == p and p)) + "\n")


def goldens(base):
    words = [w.rstrip("\n") for n in ("bert-base-uncased", "bert-base-chinese") for w in open(f"{base}/{n}/vocab.txt", encoding="utf-8", newline="\n") if not w.startswith("[unused")]
    mini(words)
    texts = corpus(words, 1000)
    strings = [t.decode("utf-8", "replace") for t in texts]
    for name, tok in configs(base):
        encs = tok.encode_batch(strings)
        doc = {"texts": [t.hex() for t in texts], "ids": [e.ids for e in encs],
               "decoded": [tok.decode(e.ids) for e in encs[:200]]}
        if name in ("uncased-json", "bge-json", "mini-vocab"):  # spans of valid texts only
            doc["spans"] = [spans(s, e) if s.encode() == t else None for s, t, e in zip(strings[:400], texts, encs)]
        with open(f"{HERE}/{name}.json.gz", "wb") as f, gzip.GzipFile("", "wb", 9, f, 0) as z:
            z.write(json.dumps(doc, separators=(",", ":")).encode())
        print(name, len(texts), os.path.getsize(f"{HERE}/{name}.json.gz"))


def compare(base, data, out):
    os.makedirs(out, exist_ok=True)
    toks, n = dict(configs(base)), 0
    toks = {k: toks[k] for k in ("uncased-json", "bge-json", "chinese-cased")}
    sink = {k: open(f"{out}/{k}.ids", "wb") for k in toks}
    with open(f"{out}/texts", "wb") as text:
        for path in sorted(glob.glob(f"{data}/**/*", recursive=True)):
            if not os.path.isfile(path):
                continue
            with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
                lines = [x for x in f.read().split(b"\n") if x]
            for at in range(0, len(lines), 20000):
                part = lines[at:at + 20000]
                strings = [x.decode("utf-8", "replace") for x in part]
                text.write(b"\n".join(part) + b"\n")
                for k, t in toks.items():
                    for e in t.encode_batch(strings):
                        array.array("i", [len(e.ids)] + e.ids).tofile(sink[k])
                n += len(part)
    print(n, "texts")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        compare(sys.argv[1], sys.argv[3], sys.argv[4])
    else:
        goldens(sys.argv[1])
