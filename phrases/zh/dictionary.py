"""Makes words.txt.gz from the dictionary of jieba 0.42.1 (MIT, see LICENSE).

pip download --no-deps --no-binary :all: jieba==0.42.1, unpack, and give the path
of jieba/dict.txt. Words seen fewer than three times are left out, and so is
the part of speech; what stays is "word frequency" a line, sorted bytewise.
"""

import gzip
import sys

LEAST = 3

lines = []
with open(sys.argv[1], encoding="utf-8") as f:
    for line in f:
        word, count = line.split(" ")[:2]
        if int(count) >= LEAST:
            lines.append(f"{word} {count}\n".encode())
lines.sort()
with open("words.txt.gz", "wb") as out:
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0) as z:
        z.write(b"".join(lines))
print(len(lines), "words")
