"""Makes texts where there are no real ones: files with the names and columns that the
comparisons read, of words of the models' own vocabularies, drawn by Zipf's law.

    python texts.py --models DIR --out DIR [--few]

Speed hangs on lengths and on how many words are known, not on sense; results from
these texts say so. They hold what trips tokenisers up too: capitals, accents,
punctuation, digits, emoji, white space of all kinds and characters of many scripts.
"""
import argparse, csv, gzip, json, math, os, pathlib, random

FILES = {  # file: column, language, rows, mean number of words
    "womens_clothing/reviews.csv.gz": ("Review Text", "en", 20000, 60),
    "amazon_musical/reviews.csv.gz": ("reviewText", "en", 9000, 80),
    "yelp_10k/yelp.csv.gz": ("text", "en", 10000, 120),
    "airline_tweets/tweets.csv.gz": ("text", "en", 12000, 18),
    "online_shopping_10_cats/online_shopping_10_cats.csv.gz": ("review", "zh", 20000, 40),
}
ODD = ["naïve", "Ünïcödé", "e\u0301te\u0301", "99.5%", "#tag", "@you", "http://a.b/c?d=e", "👍🏽", "\u200b", "\u3000", "\t", "ﬁ", "ß", "日本", "한국어", "привет", "עברית", "don't", "...", "x" * 120]


def words(models, name):
    vocab = json.loads((pathlib.Path(models) / name / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    plain = [w for w in vocab if w.isalpha() and not w.startswith("[")]
    return sorted(plain, key=vocab.get)


def make(rng, known, weights, language, mean):
    n = min(400, max(4, round(rng.lognormvariate(math.log(mean), 0.6))))
    out = rng.choices(known, cum_weights=weights, k=n)
    for _ in range(rng.randrange(3)):
        out[rng.randrange(n)] = rng.choice(ODD)
    at = 0
    while at < n:  # sentences of 4 to 14 words
        at += rng.randrange(4, 15)
        out[min(at, n) - 1] += rng.choice([".", ".", "!", "?"]) if language == "en" else rng.choice(["。", "，", "！"])
    text = (" " if language == "en" else "").join(out)
    return text[:1].upper() + text[1:]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--few", action="store_true", help="a tenth, for a check of correctness")
    a = p.parse_args()
    for file, (column, language, rows, mean) in FILES.items():
        path = pathlib.Path(a.out) / file
        rng = random.Random(file)
        known = words(a.models, "all-MiniLM-L6-v2" if language == "en" else "bge-small-zh-v1.5")
        total, weights = 0.0, []
        for i in range(len(known)):
            total += 1 / (i + 10)
            weights.append(total)
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(str(path) + ".part", "wt", encoding="utf-8", newline="", compresslevel=1) as f:
            w = csv.writer(f)
            w.writerow([column])
            for _ in range(rows // 10 if a.few else rows):
                w.writerow([make(rng, known, weights, language, mean)])
        os.replace(str(path) + ".part", path)


if __name__ == "__main__":
    main()
