"""Golden token ids from the reference implementation (PyPI `tokenizers`).

    python oracle.py TOKENIZERS_DIR              writes the goldens beside this file
    python oracle.py TOKENIZERS_DIR compare DATA OUT
                                                 writes OUT/texts and OUT/*.ids: every line of every file of DATA
    python oracle.py TOKENIZERS_DIR fuzz N OUT [SEED]
                                                 the same for N strings made to be hard
OUT is then read by TestCompare (KINDRED_TOKENIZE_COMPARE=OUT go test -run Compare -v ./embed/tokenize).

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
    texts = corpus(words, 1000) + hostile(random.Random(3), words, 400)
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


COMPARED = ("uncased-json", "uncased-vocab", "bge-json", "chinese-vocab", "chinese-cased", "mini-vocab")
WHITE = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\u00a0\u1680\u180e" + "".join(map(chr, range(0x2000, 0x2010))) + "\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
CONTROLS = "".join(map(chr, range(0x20))) + "".join(map(chr, range(0x7F, 0xA0))) + "\u00ad\u034f\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2066\u2069\ufff9\ufffb\ufffd\U000e0001\U000e0020\U000e007f"
MARKS = "".join(map(chr, range(0x300, 0x370))) + "\u0483\u05b0\u05bc\u064b\u0670\u093c\u094d\u0e31\u0f71\u0f72\u0f74\u1ab0\u1b44\u1dc4\u1dfb\u20d0\u20e3\u302a\u302e\u302f\u3099\u309a\ua66f\u08d4\ufe00\ufe0f\ufe20\U0001d165\U0001d16d\U0001e8d0\U000e0100"
EMOJI = ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1e8\U0001f1f3", "1\ufe0f\u20e3", "\u2764\ufe0f\u200d\U0001f525", "\U0001f600", "\u263a\ufe0e", "\U0001f3f4\U000e0067\U000e0062\U000e007f"]
IDEOGRAPHS = [(0x4E00, 0x9FFF), (0x4E00, 0x9FA5), (0x3400, 0x4DBF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2CEB0, 0x2EBEF), (0x2F800, 0x2FA1F), (0x30000, 0x323AF), (0x3000, 0x303F), (0x2E80, 0x2FDF), (0xFF00, 0xFFEF)]
PUNCT = "".join(chr(c) for c in range(33, 127) if not chr(c).isalnum()) + "，。！？；：、（）《》「」『』【】…—·～“”‘’"


def hostile(rng, words, n):
    """Strings of which every part tries to join, split or vanish at its neighbours."""
    def run(pool, most):
        return "".join(rng.choice(pool) for _ in range(rng.randint(1, most)))

    def cased(w):
        return rng.choice((w, w.upper(), w.title(), w.swapcase()))

    def surrogates():  # cannot be UTF-8: what a client sends for them is replaced before it is compared
        return "".join(chr(rng.randint(0xD800, 0xDFFF)) for _ in range(rng.randint(1, 3))).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    parts = (
        lambda: cased(rng.choice(words).removeprefix("##")),
        lambda: cased(rng.choice(words).removeprefix("##")) + rng.choice(words).removeprefix("##"),
        lambda: "".join(chr(rng.randint(*rng.choice(IDEOGRAPHS))) for _ in range(rng.randint(1, 6))),
        lambda: run(MARKS, 4),
        lambda: run(WHITE, 3),
        lambda: run(CONTROLS, 2),
        lambda: run(PUNCT, 3),
        lambda: rng.choice(EMOJI),
        lambda: char(rng),
        lambda: run([char(rng), "a", "é", "ß", "İ", "ﬁ", "Σ"], 5),
        lambda: rng.choice(("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[mask]", "[", "]", "##", "[UNK")),
        lambda: run("abcdefghijklmnopqrstuvwxyzABCXYZ0189", 20),
        lambda: "".join(chr(rng.randint(0xAC00, 0xD7A3)) for _ in range(rng.randint(1, 4))),
        lambda: "".join(chr(rng.randint(0x1100, 0x11FF)) for _ in range(rng.randint(1, 4))),
        surrogates,
    )
    out = []
    for _ in range(n):
        s = "".join(rng.choice(parts)() + rng.choice(("", "", " ")) for _ in range(rng.randint(1, 12)))
        if rng.randrange(50) == 0:  # about the length at which a word is given up, and far beyond
            s += run([rng.choice("azé客가"), rng.choice("b\u0301")], rng.choice((98, 102, 3000))) + s
        out.append(s.encode("utf-8", "replace"))
        if rng.randrange(20) == 0 and out[-1]:  # broken UTF-8
            b = bytearray(out[-1])
            b[rng.randrange(len(b))] = rng.randrange(256)
            out[-1] = bytes(b[: rng.randint(1, len(b))])
    return out


def lines(data):
    for path in sorted(glob.glob(f"{data}/**/*", recursive=True)):
        if os.path.isfile(path):
            with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
                found = [x for x in f.read().split(b"\n") if x]
            for at in range(0, len(found), 20000):
                yield found[at:at + 20000]


def fuzz(base, n, seed):
    rng = random.Random(seed)
    words = [w.rstrip("\n") for v in ("bert-base-uncased", "bert-base-chinese") for w in open(f"{base}/{v}/vocab.txt", encoding="utf-8", newline="\n") if not w.startswith("[unused")]
    for at in range(0, n, 20000):
        yield hostile(rng, words, min(20000, n - at))


def compare(base, parts, out):
    """A text is its length in bytes (int32) and its bytes, an answer the number of ids and the ids."""
    os.makedirs(out, exist_ok=True)
    toks, n = {k: t for k, t in configs(base) if k in COMPARED}, 0
    sink = {k: open(f"{out}/{k}.ids", "wb") for k in toks}
    with open(f"{out}/texts", "wb") as texts:
        for part in parts:
            strings = [x.decode("utf-8", "replace") for x in part]
            for x in part:
                texts.write(len(x).to_bytes(4, "little") + x)
            for k, t in toks.items():
                for e in t.encode_batch(strings):
                    array.array("i", [len(e.ids)] + e.ids).tofile(sink[k])
            n += len(part)
    print(n, "texts")


if __name__ == "__main__":
    mode = sys.argv[2] if len(sys.argv) > 2 else ""
    if mode == "compare":
        compare(sys.argv[1], lines(sys.argv[3]), sys.argv[4])
    elif mode == "fuzz":
        compare(sys.argv[1], fuzz(sys.argv[1], int(sys.argv[3]), int(sys.argv[5]) if len(sys.argv) > 5 else 1), sys.argv[4])
    else:
        goldens(sys.argv[1])
